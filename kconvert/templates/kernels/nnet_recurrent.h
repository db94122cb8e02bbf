// Recurrent layers: a cell takes one step of the sequence at a time and keeps a state h of `units` values.
//
// CONFIG_T names its matrices (input_matrix: x -> sums, state_matrix: h -> sums) and its activations. An activation has
// run(x, y), which computes `units` values y from `units` values x of its input_t by any of the kernels included here.
// Sums are [gate][unit].
#ifndef NNET_RECURRENT_H_
#define NNET_RECURRENT_H_

#include "nnet_activation.h"
#include "nnet_batch_normalization.h"
#include "nnet_matvec.h"
#include "nnet_shape.h"
#include "nnet_steps.h"

namespace nnet {

// y = f(a + b), the sum exact
template <class FUNCTION, unsigned UNITS, class A, class B, class Y> void activate(const A a[], const B b[], Y y[]) {
#pragma HLS INLINE
    lanes<typename FUNCTION::input_t> sum[UNITS];
#pragma HLS ARRAY_PARTITION variable=sum complete
Units:
    for (unsigned u = 0; u < UNITS; u++) {
#pragma HLS UNROLL
        sum[u] = a[u] + b[u];
    }
    FUNCTION::run(sum, y);
}

template <class CONFIG_T> struct recurrent_cell {
    typedef lanes<typename CONFIG_T::accum_t> accum;
    typedef lanes<typename CONFIG_T::state_t> state;
    typedef lanes<typename CONFIG_T::activation::result_t> value;
    typedef typename CONFIG_T::input_matrix::weight_t weight_t;
    typedef typename CONFIG_T::state_matrix::weight_t recurrent_weight_t;
    typedef typename CONFIG_T::input_matrix::bias_t bias_t;
    static const unsigned units = CONFIG_T::units;

    state h[units];

    recurrent_cell() {
#pragma HLS ARRAY_PARTITION variable=h complete
    Units:
        for (unsigned u = 0; u < units; u++) {
#pragma HLS UNROLL
            h[u] = typename CONFIG_T::state_t(0);
        }
    }
};

// h = f(x W + b + h U)
template <class CONFIG_T> struct simple_rnn_cell : recurrent_cell<CONFIG_T> {
    typedef recurrent_cell<CONFIG_T> base;
    static const unsigned units = CONFIG_T::units;

    template <class X>
    void step(const X x[], const typename base::weight_t weight[], const typename base::bias_t bias[],
              const typename base::recurrent_weight_t recurrent_weight[], const typename base::bias_t recurrent_bias[]) {
#pragma HLS INLINE
        typename base::accum of_input[units], of_state[units];
#pragma HLS ARRAY_PARTITION variable=of_input complete
#pragma HLS ARRAY_PARTITION variable=of_state complete
        matvec<typename CONFIG_T::input_matrix>(x, weight, bias, of_input);
        matvec<typename CONFIG_T::state_matrix>(this->h, recurrent_weight, recurrent_bias, of_state);
        typename base::value y[units];
#pragma HLS ARRAY_PARTITION variable=y complete
        activate<typename CONFIG_T::activation, units>(of_input, of_state, y);
    Units:
        for (unsigned u = 0; u < units; u++) {
#pragma HLS UNROLL
            this->h[u] = y[u];
        }
    }
};

// c = f c + i g; h = o tanh(c); gates i, f, g, o
template <class CONFIG_T> struct lstm_cell : recurrent_cell<CONFIG_T> {
    typedef recurrent_cell<CONFIG_T> base;
    typedef lanes<typename CONFIG_T::recurrent_activation::result_t> gate;
    static const unsigned units = CONFIG_T::units;

    lanes<typename CONFIG_T::cell_t> c[units];

    lstm_cell() {
#pragma HLS ARRAY_PARTITION variable=c complete
    Units:
        for (unsigned u = 0; u < units; u++) {
#pragma HLS UNROLL
            c[u] = typename CONFIG_T::cell_t(0);
        }
    }

    template <class X>
    void step(const X x[], const typename base::weight_t weight[], const typename base::bias_t bias[],
              const typename base::recurrent_weight_t recurrent_weight[], const typename base::bias_t recurrent_bias[]) {
#pragma HLS INLINE
        typename base::accum of_input[4 * units], of_state[4 * units];
#pragma HLS ARRAY_PARTITION variable=of_input complete
#pragma HLS ARRAY_PARTITION variable=of_state complete
        matvec<typename CONFIG_T::input_matrix>(x, weight, bias, of_input);
        matvec<typename CONFIG_T::state_matrix>(this->h, recurrent_weight, recurrent_bias, of_state);
        gate i[units], f[units], o[units];
        typename base::value g[units], squashed[units];
#pragma HLS ARRAY_PARTITION variable=i complete
#pragma HLS ARRAY_PARTITION variable=f complete
#pragma HLS ARRAY_PARTITION variable=o complete
#pragma HLS ARRAY_PARTITION variable=g complete
#pragma HLS ARRAY_PARTITION variable=squashed complete
        activate<typename CONFIG_T::recurrent_activation, units>(of_input, of_state, i);
        activate<typename CONFIG_T::recurrent_activation, units>(of_input + units, of_state + units, f);
        activate<typename CONFIG_T::activation, units>(of_input + 2 * units, of_state + 2 * units, g);
        activate<typename CONFIG_T::recurrent_activation, units>(of_input + 3 * units, of_state + 3 * units, o);
        lanes<typename CONFIG_T::activation::input_t> memory[units];
#pragma HLS ARRAY_PARTITION variable=memory complete
    Memory:
        for (unsigned u = 0; u < units; u++) {
#pragma HLS UNROLL
            c[u] = f[u] * c[u] + i[u] * g[u];
            memory[u] = c[u];
        }
        CONFIG_T::activation::run(memory, squashed);
    Units:
        for (unsigned u = 0; u < units; u++) {
#pragma HLS UNROLL
            this->h[u] = o[u] * squashed[u];
        }
    }
};

// h = z h + (1 - z) g, written with one product
template <class CONFIG_T, class Z, class G, class H> void gru_update(const Z z[], const G g[], H h[]) {
#pragma HLS INLINE
Units:
    for (unsigned u = 0; u < CONFIG_T::units; u++) {
#pragma HLS UNROLL
        h[u] = z[u] * (h[u] - g[u]) + g[u];
    }
}

// The reset gate r scales the candidate's sum over the state; gates z, r, g
template <class CONFIG_T> struct gru_cell : recurrent_cell<CONFIG_T> {
    typedef recurrent_cell<CONFIG_T> base;
    typedef lanes<typename CONFIG_T::recurrent_activation::result_t> gate;
    static const unsigned units = CONFIG_T::units;

    template <class X>
    void step(const X x[], const typename base::weight_t weight[], const typename base::bias_t bias[],
              const typename base::recurrent_weight_t recurrent_weight[], const typename base::bias_t recurrent_bias[]) {
#pragma HLS INLINE
        typename base::accum of_input[3 * units], of_state[3 * units];
#pragma HLS ARRAY_PARTITION variable=of_input complete
#pragma HLS ARRAY_PARTITION variable=of_state complete
        matvec<typename CONFIG_T::input_matrix>(x, weight, bias, of_input);
        matvec<typename CONFIG_T::state_matrix>(this->h, recurrent_weight, recurrent_bias, of_state);
        gate z[units], r[units];
        typename base::value g[units];
        lanes<typename CONFIG_T::activation::input_t> candidate[units];
#pragma HLS ARRAY_PARTITION variable=z complete
#pragma HLS ARRAY_PARTITION variable=r complete
#pragma HLS ARRAY_PARTITION variable=g complete
#pragma HLS ARRAY_PARTITION variable=candidate complete
        activate<typename CONFIG_T::recurrent_activation, units>(of_input, of_state, z);
        activate<typename CONFIG_T::recurrent_activation, units>(of_input + units, of_state + units, r);
    Candidates:
        for (unsigned u = 0; u < units; u++) {
#pragma HLS UNROLL
            candidate[u] = r[u] * of_state[2 * units + u] + of_input[2 * units + u];
        }
        CONFIG_T::activation::run(candidate, g);
        gru_update<CONFIG_T>(z, g, this->h);
    }
};

// The reset gate r scales the state that candidate_matrix is applied to; gates z, r, g
template <class CONFIG_T> struct gru_reset_before_cell : recurrent_cell<CONFIG_T> {
    typedef recurrent_cell<CONFIG_T> base;
    typedef lanes<typename CONFIG_T::recurrent_activation::result_t> gate;
    static const unsigned units = CONFIG_T::units;

    template <class X>
    void step(const X x[], const typename base::weight_t weight[], const typename base::bias_t bias[],
              const typename base::recurrent_weight_t recurrent_weight[], const typename base::bias_t recurrent_bias[],
              const typename base::recurrent_weight_t candidate_weight[]) {
#pragma HLS INLINE
        typename base::accum of_input[3 * units], of_state[3 * units];
#pragma HLS ARRAY_PARTITION variable=of_input complete
#pragma HLS ARRAY_PARTITION variable=of_state complete
        matvec<typename CONFIG_T::input_matrix>(x, weight, bias, of_input);
        matvec<typename CONFIG_T::state_matrix>(this->h, recurrent_weight, recurrent_bias, of_state);
        gate z[units], r[units];
        typename base::value g[units];
        typename base::state reset[units];
#pragma HLS ARRAY_PARTITION variable=z complete
#pragma HLS ARRAY_PARTITION variable=r complete
#pragma HLS ARRAY_PARTITION variable=g complete
#pragma HLS ARRAY_PARTITION variable=reset complete
        activate<typename CONFIG_T::recurrent_activation, units>(of_input, of_state, z);
        activate<typename CONFIG_T::recurrent_activation, units>(of_input + units, of_state + units, r);
    Resets:
        for (unsigned u = 0; u < units; u++) {
#pragma HLS UNROLL
            reset[u] = r[u] * this->h[u];
        }
        matvec<typename CONFIG_T::candidate_matrix>(reset, candidate_weight, recurrent_bias + 2 * units,
                                                    of_state + 2 * units);
        activate<typename CONFIG_T::activation, units>(of_input + 2 * units, of_state + 2 * units, g);
        gru_update<CONFIG_T>(z, g, this->h);
    }
};

// Step t, and the state into the output where it belongs there
template <class CONFIG_T, class CELL, class X, class Y, class... PARAMETERS>
void recurrent_step(unsigned t, CELL &cell, const X x[], Y y[], const PARAMETERS *...parameters) {
#pragma HLS INLINE
    const unsigned from = CONFIG_T::go_backwards ? CONFIG_T::steps - 1 - t : t;
    cell.step(x + from * CONFIG_T::features, parameters...);
    if (CONFIG_T::return_sequences || t + 1 == CONFIG_T::steps) {
        const unsigned to = CONFIG_T::return_sequences ? t * CONFIG_T::units : 0;
    Units:
        for (unsigned u = 0; u < CONFIG_T::units; u++) {
#pragma HLS UNROLL
            y[to + u] = cell.h[u];
        }
    }
}

template <strategy S> struct recurrence;

// The next step starts as soon as the state is there, `reuse_factor` cycles later at the earliest.
template <> struct recurrence<latency> {
    template <class CONFIG_T, class CELL, class X, class Y, class... PARAMETERS>
    static void run(CELL &cell, const X x[], Y y[], const PARAMETERS *...parameters) {
#pragma HLS INLINE
    Steps:
        for (unsigned t = 0; t < CONFIG_T::steps; t++) {
#pragma HLS PIPELINE II=CONFIG_T::reuse_factor
            recurrent_step<CONFIG_T>(t, cell, x, y, parameters...);
        }
    }
};

// Steps follow each other; the pipeline is inside, over the cycles of one matrix.
template <> struct recurrence<resource> {
    template <class CONFIG_T, class CELL, class X, class Y, class... PARAMETERS>
    static void run(CELL &cell, const X x[], Y y[], const PARAMETERS *...parameters) {
#pragma HLS INLINE
    Steps:
        for (unsigned t = 0; t < CONFIG_T::steps; t++) {
            recurrent_step<CONFIG_T>(t, cell, x, y, parameters...);
        }
    }
};

// x [steps][features] -> y [steps][units] or [units]
template <class CONFIG_T, class CELL, class X, class Y, class... PARAMETERS>
void recurrent(const X x[], Y y[], const PARAMETERS *...parameters) {
    CELL cell;
    recurrence<CONFIG_T::strategy>::template run<CONFIG_T>(cell, x, y, parameters...);
}

} // namespace nnet

#endif
