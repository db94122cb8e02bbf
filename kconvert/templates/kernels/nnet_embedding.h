// Rows of a matrix by their number.
#ifndef NNET_EMBEDDING_H_
#define NNET_EMBEDDING_H_

#include "nnet_common.h"

namespace nnet {

// y[p] = row number x[p]; a table for each column: weight[output][row]. Conversion to index_t rounds and saturates.
template <class CONFIG_T, class X, class Y>
void embedding(const X x[], Y y[], const typename CONFIG_T::weight_t weight[]) {
Positions:
    for (unsigned p = 0; p < CONFIG_T::positions; p++) {
#pragma HLS PIPELINE II=1
        const lanes<typename CONFIG_T::index_t> row = x[p];
    Outputs:
        for (unsigned o = 0; o < CONFIG_T::n_out; o++) {
#pragma HLS UNROLL
            y[p * CONFIG_T::n_out + o] = lookup(weight + o * CONFIG_T::rows, row);
        }
    }
}

} // namespace nnet

#endif
