/* How much data moved between memories, and what StarPU knows of the links. */
#include "internal.h"

/* Of an idle link between memory nodes, by StarPU's measurements; 0 or NaN where it has none. StarPU's own prediction
 * of a transfer (starpu_transfer_predict) counts with every GPU moving data at the same time. */
int dahl_link(int source, int target, double *latency_s, double *bytes_per_s)
{
    if (!atomic_load(&dahl_state.running))
        return DAHL_NOT_RUNNING;
    if (source < 0 || target < 0 || source >= dahl_state.nnodes || target >= dahl_state.nnodes)
        return DAHL_BAD_ARGUMENT;
    *latency_s = starpu_transfer_latency((unsigned)source, (unsigned)target) * 1e-6;
    *bytes_per_s = starpu_transfer_bandwidth((unsigned)source, (unsigned)target) * 1e6;
    return DAHL_OK;
}

/* Bytes by source (row) and target (column) since the last call; nodes is the size of the table. */
int dahl_transfers_take(int64_t *bytes, int nodes)
{
    if (!atomic_load(&dahl_state.running))
        return DAHL_NOT_RUNNING;
    if (nodes < dahl_state.nnodes)
        return DAHL_BAD_ARGUMENT;
    for (int i = 0; i < nodes * nodes; i++)
        bytes[i] = 0;
    for (int bus = 0; bus < starpu_bus_get_count(); bus++) {
        int source = starpu_bus_get_src(bus), target = starpu_bus_get_dst(bus);
        struct starpu_profiling_bus_info info;
        if (source >= nodes || target >= nodes || starpu_bus_get_profiling_info(bus, &info))
            continue;
        bytes[source * nodes + target] += info.transferred_bytes;
    }
    return DAHL_OK;
}
