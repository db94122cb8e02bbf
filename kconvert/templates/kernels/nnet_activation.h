// Activation functions of one variable.
#ifndef NNET_ACTIVATION_H_
#define NNET_ACTIVATION_H_

#include "nnet_common.h"

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

// The table's entry nearest to x: conversion to index_t rounds and saturates, its raw bits are the address.
template <class CONFIG_T, class X, class Y>
void table_activation(const X x[], Y y[], const typename CONFIG_T::table_t table[]) {
#pragma HLS PIPELINE II=1
Elements:
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
#pragma HLS UNROLL
        const lanes<typename CONFIG_T::index_t> index = x[i];
        y[i] = lookup(table, index);
    }
}

} // namespace nnet

#endif
