/* A StarPU program that knows nothing of Python: it runs the tasks of a file and prints where each of them ran.
 *
 *     graph_program FILE costs|history|none [pin]
 *
 * Each line of the file is a task: its microseconds on a CPU and on a GPU, its priority, the vector that it reads and
 * the one that it changes. With `pin` every fourth task goes to worker 0 past the scheduler.
 */
#include <starpu.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TASKS 4096
#define VECTORS 16
#define LENGTH 1000

static struct { double cpu_us, gpu_us; int priority, x, y; } tasks[MAX_TASKS];
static int ran_on[MAX_TASKS];

static double length_us(struct starpu_task *task, struct starpu_perfmodel_arch *arch, unsigned implementation)
{
    (void)implementation;
    int i = (int)(intptr_t)task->callback_arg;
    return arch->devices[0].type == STARPU_CPU_WORKER ? tasks[i].cpu_us : tasks[i].gpu_us;
}

static struct starpu_perfmodel costs = {.type = STARPU_PER_ARCH, .arch_cost_function = length_us, .symbol = "graph_costs"};
static struct starpu_perfmodel history = {.type = STARPU_HISTORY_BASED, .symbol = "graph_history"};

static void work(void *buffers[], void *argument)
{
    (void)argument;
    int i = (int)(intptr_t)starpu_task_get_current()->callback_arg;
    double until = starpu_timing_now() + tasks[i].cpu_us;
    while (starpu_timing_now() < until)
        ;
    ((float *)STARPU_VECTOR_GET_PTR(buffers[1]))[0] += ((float *)STARPU_VECTOR_GET_PTR(buffers[0]))[0];
}

static struct starpu_codelet codelet = {
    .name = "work",
    .cpu_funcs = {work},
#ifdef STARPU_SIMGRID
    .cuda_funcs = {work}, /* never called in a simulation */
    .cuda_flags = {STARPU_CUDA_ASYNC},
#endif
    .nbuffers = 2,
    .modes = {STARPU_R, STARPU_RW},
};

static void ended(void *argument)
{
    ran_on[(intptr_t)argument] = starpu_worker_get_id();
}

static int read_tasks(const char *path)
{
    FILE *file = fopen(path, "r");
    int n = 0;
    while (file && n < MAX_TASKS
           && fscanf(file, "%lf %lf %d %d %d", &tasks[n].cpu_us, &tasks[n].gpu_us, &tasks[n].priority, &tasks[n].x,
                     &tasks[n].y) == 5)
        n++;
    return n;
}

int main(int argc, char **argv)
{
    static float values[VECTORS][LENGTH];
    starpu_data_handle_t handles[VECTORS];
    if (argc < 3)
        return 2;
    int n = read_tasks(argv[1]);
    codelet.model = !strcmp(argv[2], "costs") ? &costs : !strcmp(argv[2], "history") ? &history : NULL;
    if (starpu_init(NULL))
        return 77;
    for (int i = 0; i < VECTORS; i++)
        starpu_vector_data_register(&handles[i], STARPU_MAIN_RAM, (uintptr_t)values[i], LENGTH, sizeof(float));
    for (int i = 0; i < n; i++) {
        struct starpu_task *task = starpu_task_create();
        task->cl = &codelet;
        task->handles[0] = handles[tasks[i].x];
        task->handles[1] = handles[tasks[i].y];
        task->priority = tasks[i].priority;
        task->callback_func = ended;
        task->callback_arg = (void *)(intptr_t)i;
        if (argc > 3 && i % 4 == 0) {
            task->execute_on_a_specific_worker = 1;
            task->workerid = 0;
        }
        if (starpu_task_submit(task))
            return 3;
    }
    starpu_task_wait_for_all();
    for (int i = 0; i < VECTORS; i++)
        starpu_data_unregister(handles[i]);
    starpu_shutdown();
    for (int i = 0; i < n; i++)
        printf("%d\n", ran_on[i]);
    return 0;
}
