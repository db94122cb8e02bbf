// Sums of products of two tensors.
#ifndef NNET_CONTRACTION_H_
#define NNET_CONTRACTION_H_

#include "nnet_common.h"

namespace nnet {

// SIZE steps of STRIDE elements
template <unsigned SIZE, int STRIDE> struct axis {
    static const unsigned size = SIZE;
    static const int stride = STRIDE;
};

// A walk over several axes, of which the last varies fastest: where is its i-th element?
template <class... AXES> struct axes {
    static const unsigned size = 1;
    static constexpr int offset(unsigned) { return 0; }
};

template <class FIRST, class... REST> struct axes<FIRST, REST...> {
    static const unsigned size = FIRST::size * axes<REST...>::size;
    static constexpr int offset(unsigned i) {
        return static_cast<int>(i / axes<REST...>::size) * FIRST::stride + axes<REST...>::offset(i % axes<REST...>::size);
    }
};

// y[o] = sum over k of a[..] * b[..], each sum stored in the accumulator's type
template <class CONFIG_T, class A, class B, class Y> void contraction(const A a[], const B b[], Y y[]) {
Outputs:
    for (unsigned o = 0; o < CONFIG_T::a_outputs::size; o++) {
#pragma HLS PIPELINE II=1
        const A *const in_a = a + CONFIG_T::a_outputs::offset(o);
        const B *const in_b = b + CONFIG_T::b_outputs::offset(o);
        lanes<typename CONFIG_T::accum_t> accum = typename CONFIG_T::accum_t(0);
    Products:
        for (unsigned k = 0; k < CONFIG_T::a_summed::size; k++) {
#pragma HLS UNROLL
            accum += in_a[CONFIG_T::a_summed::offset(k)] * in_b[CONFIG_T::b_summed::offset(k)];
        }
        y[o] = accum;
    }
}

} // namespace nnet

#endif
