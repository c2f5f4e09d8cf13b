/* The types of cuSOLVER that StarPU's headers name; see README.md. */
#ifndef DAHL_CUSOLVERDN_H
#define DAHL_CUSOLVERDN_H
typedef struct cusolverDnContext *cusolverDnHandle_t;
typedef int cusolverStatus_t;
#endif
