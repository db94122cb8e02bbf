// Activation functions of one variable.
#ifndef NNET_ACTIVATION_H_
#define NNET_ACTIVATION_H_

#include "nnet_lookup.h"

namespace nnet {

// max(x, 0)
template <class CONFIG_T, class X, class Y> void relu(const X x[], Y y[]) {
#pragma HLS PIPELINE II=1
    const X zero = typename CONFIG_T::input_t(0);
Elements:
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
#pragma HLS UNROLL
        y[i] = max(x[i], zero);
    }
}

// x where it is positive, slope * x elsewhere
template <class CONFIG_T, class X, class Y>
void leaky_relu(const X x[], Y y[], const typename CONFIG_T::slope_t slope[]) {
#pragma HLS PIPELINE II=1
Elements:
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
#pragma HLS UNROLL
        const Y above = x[i];
        const Y below = x[i] * slope[0];
        y[i] = select(x[i] < typename CONFIG_T::input_t(0), below, above);
    }
}

// min(y, limit) in place
template <class CONFIG_T, class Y> void clip(Y y[], const typename CONFIG_T::limit_t limit[]) {
#pragma HLS PIPELINE II=1
    const Y most = limit[0];
Elements:
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
#pragma HLS UNROLL
        y[i] = min(y[i], most);
    }
}

// max(y, limit) in place
template <class CONFIG_T, class Y> void clip_below(Y y[], const typename CONFIG_T::lower_limit_t limit[]) {
#pragma HLS PIPELINE II=1
    const Y least = limit[0];
Elements:
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
#pragma HLS UNROLL
        y[i] = max(y[i], least);
    }
}

// The code of x times its scale
template <class CONFIG_T, class X, class Y>
void scaled_quantize(const X x[], Y y[], const typename CONFIG_T::scale_t scale[]) {
#pragma HLS PIPELINE II=1
Elements:
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
#pragma HLS UNROLL
        const lanes<typename CONFIG_T::code_t> code = x[i];
        y[i] = CONFIG_T::product::multiply(code, scale[i % CONFIG_T::channels]);
    }
}

// The code of x * factor times its scale
template <class CONFIG_T, class X, class Y>
void scaled_quantize(const X x[], Y y[], const typename CONFIG_T::scale_t scale[],
                     const typename CONFIG_T::factor_t factor[]) {
#pragma HLS PIPELINE II=1
Elements:
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
#pragma HLS UNROLL
        const unsigned channel = i % CONFIG_T::channels;
        const lanes<typename CONFIG_T::code_t> code = CONFIG_T::product::multiply(x[i], factor[channel]);
        y[i] = CONFIG_T::product::multiply(code, scale[channel]);
    }
}

// What the tables hold for x
template <class CONFIG_T, class X, class Y, class... TABLES> void table_activation(const X x[], Y y[], const TABLES *...tables) {
#pragma HLS PIPELINE II=1
Elements:
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
#pragma HLS UNROLL
        y[i] = look_up<CONFIG_T>(x[i], tables...);
    }
}

// The same on top of a straight line above zero, line[0], and one below, line[1]
template <class CONFIG_T, class X, class Y, class... TABLES>
void table_activation_on_lines(const X x[], Y y[], const typename CONFIG_T::line_t line[], const TABLES *...tables) {
#pragma HLS PIPELINE II=1
    const X zero = typename CONFIG_T::input_t(0);
Elements:
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
#pragma HLS UNROLL
        const X above = max(x[i], zero), below = min(x[i], zero);
        y[i] = look_up<CONFIG_T>(x[i], tables...) + above * line[0] + below * line[1];
    }
}

} // namespace nnet

#endif
