// Rectifiers with a slope per channel, or that bend elsewhere than at zero.
#ifndef NNET_RECTIFIERS_H_
#define NNET_RECTIFIERS_H_

#include "nnet_common.h"

namespace nnet {

// x where it is positive, slope[i % slopes] * x elsewhere
template <class CONFIG_T, class X, class Y>
void prelu(const X x[], Y y[], const typename CONFIG_T::slope_t slope[]) {
#pragma HLS PIPELINE II=1
Elements:
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
#pragma HLS UNROLL
        const Y above = x[i];
        const Y below = x[i] * slope[i % CONFIG_T::slopes];
        y[i] = select(x[i] < typename CONFIG_T::input_t(0), below, above);
    }
}

// x from the threshold on, x * slope + offset below it
template <class CONFIG_T, class X, class Y>
void threshold_relu(const X x[], Y y[], const typename CONFIG_T::threshold_t threshold[],
                    const typename CONFIG_T::slope_t slope[], const typename CONFIG_T::offset_t offset[]) {
#pragma HLS PIPELINE II=1
Elements:
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
#pragma HLS UNROLL
        const Y above = x[i];
        const Y below = x[i] * slope[0] + offset[0];
        y[i] = select(x[i] < threshold[0], below, above);
    }
}

// The same, with what is above the threshold between zero and a limit
template <class CONFIG_T, class X, class Y>
void threshold_relu(const X x[], Y y[], const typename CONFIG_T::threshold_t threshold[],
                    const typename CONFIG_T::slope_t slope[], const typename CONFIG_T::offset_t offset[],
                    const typename CONFIG_T::limit_t limit[]) {
#pragma HLS PIPELINE II=1
    const X zero = typename CONFIG_T::input_t(0);
    const Y most = limit[0];
Elements:
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
#pragma HLS UNROLL
        const Y positive = max(x[i], zero);
        const Y above = min(positive, most);
        const Y below = x[i] * slope[0] + offset[0];
        y[i] = select(x[i] < threshold[0], below, above);
    }
}

} // namespace nnet

#endif
