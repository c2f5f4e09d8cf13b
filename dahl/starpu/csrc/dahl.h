/* What Python sees of the C layer.
 *
 * The compiler includes this file and cffi parses it (without the lines that start with '#'),
 * so a declaration stands here once. Times are seconds on StarPU's clock, energies joules.
 */
#ifndef DAHL_H
#define DAHL_H
#include <stdint.h>

/* Every call that can fail returns one of these; dahl/starpu/errors.py has a class for each. */
typedef enum {
    DAHL_OK = 0,
    DAHL_NO_MEMORY = 1,
    DAHL_BAD_ARGUMENT = 2,
    DAHL_NOT_RUNNING = 3,
    DAHL_ALREADY_RUNNING = 4,
    DAHL_NO_WORKER = 5,
    DAHL_INIT_FAILED = 6,
    DAHL_UNKNOWN_SCHEDULER = 7,
    DAHL_NO_ELIGIBLE_WORKER = 8,
    DAHL_KERNEL_FAILED = 9,
    DAHL_POLICY_RAISED = 10,
    DAHL_POLICY_BAD_ANSWER = 11,
    DAHL_POLICY_STARVED = 12,
    DAHL_COST_UNKNOWN = 13,
    DAHL_TASKS_PENDING = 14,
    DAHL_NO_SIMGRID = 15,
    DAHL_CANCELLED = 16,
    DAHL_NO_GPU = 17,
    DAHL_GPU_FAILED = 18,
    DAHL_GPU_MEMORY = 19,
} dahl_status;

/* A kernel: sets *status to 0 as its last act (it is poisoned before).
 * args[0] is the number of scratch floats, the rest is the kernel's own. */
typedef void (*dahl_kernel)(int32_t *status, void **buffers, int64_t nbuffers, int64_t *args, float *scratch);

/* ---- what a policy sees (schedulers/views.py has the same records) ---- */

typedef struct {
    int64_t id;
    int64_t footprint;
    double ready_s;
    double b_level_s;
    int32_t codelet;
    int32_t priority;
    int32_t graph; /* number of the recorded graph that the task is of, and its place in it; -1 by itself */
    int32_t place;
} dahl_task_view;

typedef struct {
    int64_t count;
    int64_t sequence;
    int64_t footprint;
    double ready_s;
    double b_level_s;
    int32_t codelet;
    int32_t priority;
} dahl_ready_view;

typedef struct {
    double length_s;
    double energy_j;
    double transfer_s;
    double available_s;
    double idle_w;
    double busy_w;
    double score;
    int64_t queued;
    int32_t can_run;
    int32_t arch;
    int32_t memory_node;
    int32_t worker_class;
    int32_t power_domain;
    int32_t rank; /* for a placement policy to fill: of what waits for the worker, the highest runs first */
} dahl_worker_view;

typedef struct {
    double now_s;
    double base_w;
    double idle_w;
    double modelled_w;
    double measured_w;
    double measured_age_s;
    int64_t ready_count;
    int64_t running_count;
} dahl_system_view;

/* Answers a worker id. */
typedef void (*dahl_place)(int32_t *status, int64_t *answer, const dahl_task_view *task,
                           dahl_worker_view *workers, int64_t nworkers,
                           const dahl_system_view *system, double *memory, int64_t nmemory);
/* Answers a row of ready, or -1 to leave the worker idle. workers is ready x workers. */
typedef void (*dahl_pick)(int32_t *status, int64_t *answer, int64_t worker, const dahl_ready_view *ready,
                          int64_t nready, dahl_worker_view *workers, int64_t nworkers,
                          const dahl_system_view *system, double *memory, int64_t nmemory);

/* Told when a task starts (length_s is NaN) and when it ends. */
typedef void (*dahl_hook)(int32_t *status, const dahl_task_view *task, int64_t worker, double length_s,
                          const dahl_system_view *system, double *memory, int64_t nmemory);

typedef struct {
    const char *name;
    dahl_place place;
    dahl_pick pick;
    dahl_hook started;
    dahl_hook ended;
    double *memory;
    int64_t nmemory;
    double base_w;
    const double *idle_w;
    const double *busy_w;
    const int32_t *power_domain;
    const int32_t *worker_class;
    /* Live watts of the machine: live[0] is the second on StarPU's clock at which they were read, live[1] the watts. */
    const volatile double *live;
    /* Or watts to replay: nreplay pairs of second and watts, by time; NULL where there are none. */
    const double *replay;
    int64_t nreplay;
    /* Keep a record of each candidate of each decision. */
    int32_t explain;
    /* A policy that takes longer than this over one answer ends the process; 0: no watch. */
    double answer_limit_s;
} dahl_policy;

/* One candidate of one decision. */
typedef struct {
    int64_t decision;
    int64_t task;
    double now_s;
    double length_s;
    double energy_j;
    double transfer_s;
    double available_s;
    double score;
    int32_t codelet;
    int32_t asker;
    int32_t worker;
    int32_t chosen;
} dahl_decision;

/* ---- runtime ---- */

typedef struct {
    int32_t cpu_workers;
    int32_t gpu_workers;
    int32_t trace;
    const char *scheduler;
    const dahl_policy *policy;
    int32_t npower;
    /* For how long a worker without a task looks for one before it sleeps; 0: it sleeps at once. */
    double poll_us;
} dahl_config;

typedef struct {
    int32_t id;
    int32_t arch;
    int32_t device;
    int32_t memory_node;
    char name[64];
} dahl_worker;

typedef struct {
    int32_t status;
    int32_t codelet;
    int32_t worker;
    int64_t task;
    int64_t answer;
} dahl_failure;

typedef struct {
    int64_t task;
    int64_t tag;
    int64_t footprint;
    int32_t codelet;
    int32_t worker;
    double submit_s;
    double ready_s;
    double start_s;
    double end_s;
    double predicted_s;
    double predicted_j;
} dahl_trace_record;

int dahl_is_simgrid(void);
void dahl_version(int *major, int *minor, int *release);
int dahl_limits(int *max_cpus, int *max_gpus, int *max_buffers);
int dahl_predefined_scheduler(int index, const char **name, const char **description);
int dahl_init(const dahl_config *config);
int dahl_shutdown(void);
int dahl_worker_count(void);
int dahl_worker_info(int worker, dahl_worker *info);
double dahl_now_s(void);
double dahl_energy_used_j(void);
int dahl_set_noise(double sigma, uint64_t seed);
int dahl_set_overheads(double before_s, double after_s, double wake_s, double submit_s);
int dahl_transfers_take(int64_t *bytes, int nodes);
int dahl_link(int source, int target, double *latency_s, double *bytes_per_s);
int dahl_set_base_w(double base_w);
int dahl_pause(void);
int dahl_resume(void);
int dahl_cancel(void);
int dahl_failure_get(dahl_failure *failure);
int dahl_wait_all(void);
int dahl_wait_submitted(int64_t at_most);
int64_t dahl_submitted(void);
int64_t dahl_decision_count(void);
int dahl_decision_take(dahl_decision *decisions, int64_t capacity);
int64_t dahl_trace_count(void);
int dahl_trace_take(dahl_trace_record *records, int64_t capacity);

/* Runs dahl_main_callback as the main actor of a simulation. */
int dahl_simulate(int argc, char **argv, int *returned);

/* ---- data ---- */

int dahl_data_register(void *array, uint64_t elements, uint64_t element_bytes, void **handle);
int dahl_data_unregister(void *handle);
/* Keeps memory in its place, so that GPUs copy from and to it without the CPU; tells 1 where that was done. */
int dahl_data_pin(void *array, uint64_t bytes);
int dahl_data_unpin(void *array, uint64_t bytes);
int dahl_data_acquire(void *handle, int mode);
int dahl_data_release(void *handle);

/* ---- codelets and tasks ---- */

typedef struct dahl_codelet dahl_codelet;

/* arch_mask: bit 0 CPU, bit 1 GPU. modes: 1 read, 2 write, 3 both; with repeats the last one stands for the rest.
 * model: 0 none, 1 the costs given with each task, 2 StarPU's history model under `symbol`. */
int dahl_codelet_new(const char *name, const char *symbol, int32_t id, dahl_kernel cpu, int32_t arch_mask,
                     const int32_t *modes, int32_t nmodes, int32_t repeats, int32_t model, dahl_codelet **codelet);
void dahl_codelet_free(dahl_codelet *codelet);
double dahl_expected_length_s(dahl_codelet *codelet, void **handles, int64_t nhandles, int worker);

/* One prepared task. costs: nworkers lengths in seconds, then nworkers energies in joules; NULL is unknown. */
typedef struct {
    dahl_codelet *codelet;
    const double *costs;
    int64_t tag;
    int64_t footprint;
    int64_t first_handle;
    int64_t nhandles;
    int64_t first_arg;
    int64_t nargs;
    double b_level_s;
    int32_t priority;
    int32_t graph;
    /* What it runs on a GPU (dahl/starpu/encoding.py); NULL where it runs on none. */
    const int64_t *program;
} dahl_node;

/* Submits n tasks. Argument k becomes args[k] + step * strides[k]; strides may be NULL. */
int dahl_submit(const dahl_node *nodes, int64_t n, void **handles, const int64_t *args, const int64_t *strides,
                int64_t step);
/* Prepared tasks that are submitted together. */
typedef struct {
    const dahl_node *nodes;
    int64_t n;
    void **handles;
    const int64_t *args;
    const int64_t *strides;
} dahl_graph;

/* Graph which[i] is submitted with steps[i], for each i in order: now as long as fewer than at_most tasks are unfinished,
 * and then by workers. The arrays stay where they are until all is submitted or stopped. */
int dahl_feed_start(const dahl_graph *graphs, const int32_t *which, const int64_t *steps, int64_t count,
                    int64_t at_most);
/* Waits until all is submitted, or for so long; tells how many graphs were. */
int dahl_feed_wait(double at_most_s, int64_t *submitted);
int dahl_feed_stop(void);
/* Submits one task that comes in no list. costs and handles are addresses as Python holds them: integers. */
int dahl_submit_one(dahl_codelet *codelet, const uintptr_t *handles, int64_t nhandles, const int64_t *args,
                    int64_t nargs, uintptr_t costs, int64_t tag, int32_t priority, uintptr_t program);

/* ---- NVIDIA GPUs: in the variant cuda; elsewhere these answer DAHL_NO_GPU ---- */

typedef struct {
    int32_t count;
    int32_t driver;  /* the newest CUDA that the driver supports, 13000 for 13.0; 0 without a driver */
    int32_t runtime; /* the CUDA that StarPU was built with */
    int32_t error;   /* cudaError_t of counting the GPUs */
    char words[128];
    struct {
        int32_t capability; /* 90 for 9.0 */
        int32_t compute_mode;
        char pci_bus_id[32];
        char name[64];
    } device[16];
} dahl_gpu_probe;

int dahl_has_cuda(void);
int dahl_cuda_memory(int device, uint64_t *free_bytes, uint64_t *total_bytes);
int dahl_cuda_probe(dahl_gpu_probe *probe);
/* Once StarPU runs: `driver` is libcuda's name. What went wrong is told by dahl_cuda_trouble. */
int dahl_cuda_open(const char *driver);
int dahl_cuda_blas(const char *library);
/* Loads a compiled source for a worker's GPU; function names[i] gets numbers[i], by which programs call it. */
int dahl_cuda_load(int worker, const void *image, const char *const *names, const int64_t *numbers, int64_t n);
/* Each GPU worker has at least so much scratch memory from now on. */
int dahl_cuda_reserve(uint64_t bytes);
/* Copies what tasks only read to each GPU; where writable, anew before the first task and after each dahl_wait_all. */
int dahl_cuda_constant(const void *host, uint64_t bytes, int32_t writable);
const char *dahl_cuda_trouble(void);
#endif
