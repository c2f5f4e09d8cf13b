/* How much data moved between memories. */
#include "internal.h"

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
