// Step functions.
#ifndef NNET_STEPS_H_
#define NNET_STEPS_H_

#include "nnet_common.h"

namespace nnet {

// y = level[n], n the number of thresholds that x is not below; threshold[k][channel] ascends with k. Thresholds and
// levels are those of the channel, or the same for all.
template <class CONFIG_T, class X, class Y>
void thresholds(const X x[], Y y[], const typename CONFIG_T::threshold_t threshold[],
                const typename CONFIG_T::level_t level[]) {
#pragma HLS PIPELINE II=1
Elements:
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
#pragma HLS UNROLL
        const unsigned threshold_channel = i % CONFIG_T::threshold_channels;
        const unsigned level_channel = i % CONFIG_T::level_channels;
        Y reached = level[level_channel];
    Steps:
        for (unsigned k = 0; k < CONFIG_T::steps; k++) {
#pragma HLS UNROLL
            const Y next = level[(k + 1) * CONFIG_T::level_channels + level_channel];
            reached = select(x[i] < threshold[k * CONFIG_T::threshold_channels + threshold_channel], reached, next);
        }
        y[i] = reached;
    }
}

} // namespace nnet

#endif
