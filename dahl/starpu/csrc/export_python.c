/* What compiled policies call of Python and of Numba's runtime: only where they raise.
 *
 * There is no Python here. A raise skips these calls and returns, the status stays poisoned, and dahl_fail ends the
 * process. Only what a raise needs is here: a policy that makes arrays or calls NumPy does not link, and the export
 * says so.
 */
#include <stdint.h>
#include <stdlib.h>

#define UNUSED(x) ((void)(x))

char PyExc_RuntimeError, PyExc_StopIteration, PyExc_SystemError;

void numba_gil_ensure(int *state) { UNUSED(state); }
void numba_gil_release(int *state) { UNUSED(state); }
void numba_do_raise(void *exception) { UNUSED(exception); }
void *numba_unpickle(const char *pickled, int32_t size, const char *hash)
{
    UNUSED(pickled);
    UNUSED(size);
    UNUSED(hash);
    return NULL;
}
void *numba_runtime_build_excinfo_struct(void *exception, void *arguments)
{
    UNUSED(exception);
    UNUSED(arguments);
    return NULL;
}

void Py_IncRef(void *object) { UNUSED(object); }
void Py_DecRef(void *object) { UNUSED(object); }
void PyErr_Clear(void) {}
void PyErr_SetNone(void *type) { UNUSED(type); }
void PyErr_SetString(void *type, const char *message) { UNUSED(type); UNUSED(message); }
void PyErr_WriteUnraisable(void *object) { UNUSED(object); }
void *PyBool_FromLong(long value) { UNUSED(value); return NULL; }
void *PyBytes_FromStringAndSize(const char *bytes, int64_t size) { UNUSED(bytes); UNUSED(size); return NULL; }
void *PyFloat_FromDouble(double value) { UNUSED(value); return NULL; }
void *PyLong_FromLong(long value) { UNUSED(value); return NULL; }
void *PyLong_FromLongLong(long long value) { UNUSED(value); return NULL; }
void *PyLong_FromUnsignedLongLong(unsigned long long value) { UNUSED(value); return NULL; }
void *PyTuple_Pack(int64_t size, ...) { UNUSED(size); return NULL; }
void *PyUnicode_FromString(const char *text) { UNUSED(text); return NULL; }

/* An exception with arguments is a block of this kind; the process ends before it is one too many. */
void *NRT_Allocate(size_t bytes) { return malloc(bytes); }
void NRT_Free(void *block) { free(block); }
/* Called for the last reference to an array, and an exported policy makes none. */
void NRT_MemInfo_call_dtor(void *array) { UNUSED(array); abort(); }
