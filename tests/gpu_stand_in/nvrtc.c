/* In the place of NVRTC: the program that STAND_IN_COMPILER names makes a library for the host; the image is its path. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct program { char *source, *log, *image; };

int nvrtcVersion(int *major, int *minor)
{
    *major = 0;
    *minor = 1;
    return 0;
}

int nvrtcCreateProgram(struct program **made, const char *source, const char *name, int headers, const char *const *texts,
                       const char *const *names)
{
    (void)name, (void)headers, (void)texts, (void)names;
    struct program *program = calloc(1, sizeof(*program));
    program->source = strdup(source);
    *made = program;
    return 0;
}

int nvrtcCompileProgram(struct program *program, int count, const char *const *options)
{
    const char *folder = getenv("TMPDIR");
    char *path = NULL, line[4096] = "", *command = NULL, *all = strdup("");
    (void)count, (void)options;
    if (asprintf(&path, "%s/stand-in-XXXXXX", folder ? folder : P_tmpdir) < 0)
        return 1;
    int file = mkstemp(path);
    FILE *out = fdopen(file, "w");
    fputs(program->source, out);
    fclose(out);
    if (asprintf(&command, "%s %s 2>&1", getenv("STAND_IN_COMPILER"), path) < 0)
        return 1;
    FILE *in = popen(command, "r");
    while (fgets(line, sizeof(line), in)) {
        char *longer = NULL;
        if (asprintf(&longer, "%s%s", all, line) < 0)
            return 1;
        free(all);
        all = longer;
    }
    int failed = pclose(in) != 0;
    remove(path);
    free(path);
    program->log = all;
    all[strcspn(all, "\n")] = failed ? all[strcspn(all, "\n")] : '\0';
    if (!failed && asprintf(&program->image, "STAND-IN:%s", all) < 0)
        return 1;
    return failed ? 6 : 0;
}

int nvrtcGetProgramLogSize(struct program *program, size_t *size)
{
    *size = strlen(program->log) + 1;
    return 0;
}

int nvrtcGetProgramLog(struct program *program, char *log)
{
    strcpy(log, program->log);
    return 0;
}

int nvrtcGetCUBINSize(struct program *program, size_t *size)
{
    *size = strlen(program->image) + 1;
    return 0;
}

int nvrtcGetCUBIN(struct program *program, char *image)
{
    strcpy(image, program->image);
    return 0;
}

int nvrtcDestroyProgram(struct program **program)
{
    free((*program)->source);
    free((*program)->log);
    free((*program)->image);
    free(*program);
    *program = NULL;
    return 0;
}
