/* The one type of cuSPARSE that StarPU's headers name; see README.md. */
#ifndef DAHL_CUSPARSE_H
#define DAHL_CUSPARSE_H
typedef struct cusparseContext *cusparseHandle_t;
#endif
