/* The one type of this part of cuSOLVER that StarPU's headers name; see README.md. */
#ifndef DAHL_CUSOLVERRF_H
#define DAHL_CUSOLVERRF_H
typedef struct csrluRfContext *cusolverRfHandle_t;
#endif
