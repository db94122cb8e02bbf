// Reading functions from tables, and finding leading bits.
#ifndef NNET_LOOKUP_H_
#define NNET_LOOKUP_H_

#include "nnet_common.h"

namespace nnet {

// The table's entry nearest to x: conversion to index_t rounds and saturates, its raw bits are the address.
template <class CONFIG_T, class X>
lanes<typename CONFIG_T::table_t> look_up(const X &x, const typename CONFIG_T::table_t table[]) {
#pragma HLS INLINE
    const lanes<typename CONFIG_T::index_t> index = x;
    return lookup(table, index);
}

// The point on the straight line between the two entries around x, exact; slope[i] belongs to the line behind entry i.
template <class CONFIG_T, class X>
lanes<typename CONFIG_T::answer_t> look_up(const X &x, const typename CONFIG_T::table_t table[],
                                           const typename CONFIG_T::slope_t slope[]) {
#pragma HLS INLINE
    const lanes<typename CONFIG_T::position_t> position = x;
    const lanes<typename CONFIG_T::index_t> index = position;
    const lanes<typename CONFIG_T::rest_t> rest = position - index;
    return lookup(table, index) + rest * lookup(slope, index);
}

// Shift v to the left by a multiple of UNIT bits, until one of its upper UNIT bits is set; count says how many times
// UNIT. Halved in steps: step k shifts by 2^k units or not at all.
template <int STEP, int UNIT> struct leading {
    template <class V, class COUNT> static void to_top(lanes<V> &v, lanes<COUNT> &count) {
#pragma HLS INLINE
        const int bits = UNIT << STEP;
        V bound = 0;
        bound[V::width - bits] = 1;
        const auto small = v < bound;
        const lanes<V> shifted = v << bits;
        const lanes<COUNT> counted = count + COUNT(1 << STEP);
        v = select(small, shifted, v);
        count = select(small, counted, count);
        leading<STEP - 1, UNIT>::to_top(v, count);
    }
};
template <int UNIT> struct leading<-1, UNIT> {
    template <class V, class COUNT> static void to_top(lanes<V> &, lanes<COUNT> &) {
#pragma HLS INLINE
    }
};

} // namespace nnet

#endif
