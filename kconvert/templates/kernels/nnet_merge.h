// Layers that join tensors.
#ifndef NNET_MERGE_H_
#define NNET_MERGE_H_

#include "nnet_common.h"

namespace nnet {

template <class SUM, class A> void add_up(SUM &sum, unsigned i, const A a[]) {
#pragma HLS INLINE
    sum += a[i];
}

template <class SUM, class A, class... REST> void add_up(SUM &sum, unsigned i, const A a[], const REST *...rest) {
#pragma HLS INLINE
    sum += a[i];
    add_up(sum, i, rest...);
}

// y = a + b + ..., exact before it is stored
template <class CONFIG_T, class Y, class... INPUTS> void add(Y y[], const INPUTS *...inputs) {
#pragma HLS PIPELINE II=1
Elements:
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
#pragma HLS UNROLL
        lanes<typename CONFIG_T::sum_t> sum = typename CONFIG_T::sum_t(0);
        add_up(sum, i, inputs...);
        y[i] = sum;
    }
}

// Put a block of `PART` elements at `OFFSET` of every row of `WIDTH` elements.
template <unsigned ROWS, unsigned PART, unsigned OFFSET, unsigned WIDTH, class X, class Y>
void place(const X x[], Y y[]) {
#pragma HLS PIPELINE II=1
Rows:
    for (unsigned row = 0; row < ROWS; row++) {
#pragma HLS UNROLL
    Part:
        for (unsigned i = 0; i < PART; i++) {
#pragma HLS UNROLL
            y[row * WIDTH + OFFSET + i] = x[row * PART + i];
        }
    }
}

} // namespace nnet

#endif
