// Activation functions of three straight lines.
#ifndef NNET_HARD_ACTIVATION_H_
#define NNET_HARD_ACTIVATION_H_

#include "nnet_activation.h"

namespace nnet {

// x * slope + offset, between the limits
template <class CONFIG_T, class X, class Y>
void hard_activation(const X x[], Y y[], const typename CONFIG_T::slope_t slope[],
                     const typename CONFIG_T::offset_t offset[], const typename CONFIG_T::limit_t limit[],
                     const typename CONFIG_T::lower_limit_t lower_limit[]) {
#pragma HLS PIPELINE II=1
    const Y most = limit[0], least = lower_limit[0];
Elements:
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
#pragma HLS UNROLL
        const Y line = x[i] * slope[0] + offset[0];
        y[i] = max(min(line, most), least);
    }
}

} // namespace nnet

#endif
