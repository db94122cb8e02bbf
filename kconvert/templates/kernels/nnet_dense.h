// Dense: y = x W + b, applied at every position of the axes before the last.
#ifndef NNET_DENSE_H_
#define NNET_DENSE_H_

#include "nnet_matvec.h"

namespace nnet {

template <class CONFIG_T> struct dense_position {
    template <class X, class Y, class W, class B>
    static void at(unsigned p, const X x[], Y y[], const W weight[], const B bias[]) {
#pragma HLS INLINE
        lanes<typename CONFIG_T::accum_t> accum[CONFIG_T::n_out];
#pragma HLS ARRAY_PARTITION variable=accum complete
        matvec<CONFIG_T>(x + p * CONFIG_T::n_in, weight, bias, accum);
    Results:
        for (unsigned o = 0; o < CONFIG_T::n_out; o++) {
#pragma HLS UNROLL
            y[p * CONFIG_T::n_out + o] = accum[o];
        }
    }
};

template <class CONFIG_T, class X, class Y>
void dense(const X x[], Y y[], const typename CONFIG_T::weight_t weight[], const typename CONFIG_T::bias_t bias[]) {
    schedule<CONFIG_T::strategy>::template run<CONFIG_T, dense_position<CONFIG_T>>(x, y, weight, bias);
}

} // namespace nnet

#endif
