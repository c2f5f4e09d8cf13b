/* The one type of this part of cuSOLVER that StarPU's headers name; see README.md. */
#ifndef DAHL_CUSOLVERSP_H
#define DAHL_CUSOLVERSP_H
typedef struct cusolverSpContext *cusolverSpHandle_t;
#endif
