// Recurrent layers: a cell takes one step of the sequence at a time and keeps a state h of `units` values.
//
// CONFIG_T names its matrices (input_matrix: x -> sums, state_matrix: h -> sums) and its functions: the activations, and
// a quantizer for each part of the state, which makes what the next step reads of the new value (at first of zero). A
// function has run(x, y), which computes `units` values y of its result_t from `units` values x of its input_t by any of
// the kernels included here. Sums are [gate][unit].
#ifndef NNET_RECURRENT_H_
#define NNET_RECURRENT_H_

#include "nnet_activation.h"
#include "nnet_batch_normalization.h"
#include "nnet_hard_activation.h"
#include "nnet_matvec.h"
#include "nnet_shape.h"
#include "nnet_steps.h"

namespace nnet {

// What the cells share: the state, the new values, and the sums of one step.
template <class CONFIG_T> struct recurrent_cell {
    typedef typename CONFIG_T::input_matrix::weight_t weight_t;
    typedef typename CONFIG_T::state_matrix::weight_t recurrent_weight_t;
    typedef typename CONFIG_T::input_matrix::bias_t bias_t;
    static const unsigned units = CONFIG_T::units;
    static const unsigned sums = CONFIG_T::input_matrix::n_out;

    lanes<typename CONFIG_T::state_t> h[units];
    lanes<typename CONFIG_T::state_quantizer::input_t> y[units];
    lanes<typename CONFIG_T::accum_t> of_input[sums], of_state[sums];

    recurrent_cell() {
#pragma HLS ARRAY_PARTITION variable=h complete
#pragma HLS ARRAY_PARTITION variable=y complete
#pragma HLS ARRAY_PARTITION variable=of_input complete
#pragma HLS ARRAY_PARTITION variable=of_state complete
    Units:
        for (unsigned u = 0; u < units; u++) {
#pragma HLS UNROLL
            y[u] = typename CONFIG_T::state_quantizer::input_t(0);
        }
        keep();
    }

    template <class X>
    void sum(const X x[], const weight_t weight[], const bias_t bias[], const recurrent_weight_t recurrent_weight[],
             const bias_t recurrent_bias[]) {
#pragma HLS INLINE
        matvec<typename CONFIG_T::input_matrix>(x, weight, bias, of_input);
        matvec<typename CONFIG_T::state_matrix>(h, recurrent_weight, recurrent_bias, of_state);
    }

    // value = f(of_input + of_state) of one gate, the sum exact
    template <class FUNCTION, class VALUE> void activate(unsigned gate, VALUE value[]) const {
#pragma HLS INLINE
        lanes<typename FUNCTION::input_t> total[units];
#pragma HLS ARRAY_PARTITION variable=total complete
    Units:
        for (unsigned u = 0; u < units; u++) {
#pragma HLS UNROLL
            total[u] = of_input[gate * units + u] + of_state[gate * units + u];
        }
        FUNCTION::run(total, value);
    }

    // The state to begin with
    template <class H> void start(const H given[]) {
#pragma HLS INLINE
    Units:
        for (unsigned u = 0; u < units; u++) {
#pragma HLS UNROLL
            y[u] = given[u];
        }
        keep();
    }

    // What is returned after the values of h: nothing
    template <class Y> void append(Y[]) const {}

    // The new values become the state.
    void keep() {
#pragma HLS INLINE
        CONFIG_T::state_quantizer::run(y, h);
    }
};

// h = f(x W + b + h U)
template <class CONFIG_T> struct simple_rnn_cell : recurrent_cell<CONFIG_T> {
    template <class X, class... PARAMETERS> void step(const X x[], const PARAMETERS *...parameters) {
#pragma HLS INLINE
        this->sum(x, parameters...);
        lanes<typename CONFIG_T::activation::result_t> value[CONFIG_T::units];
#pragma HLS ARRAY_PARTITION variable=value complete
        this->template activate<typename CONFIG_T::activation>(0, value);
    Units:
        for (unsigned u = 0; u < CONFIG_T::units; u++) {
#pragma HLS UNROLL
            this->y[u] = value[u];
        }
        this->keep();
    }
};

// What the cells with gates share: a name for each kind of value.
template <class CONFIG_T> struct gated_cell : recurrent_cell<CONFIG_T> {
    typedef typename CONFIG_T::activation activation;
    typedef typename CONFIG_T::recurrent_activation recurrent_activation;
    typedef lanes<typename activation::result_t> value;
    typedef lanes<typename recurrent_activation::result_t> gate;
};

// c = f c + i g; h = o tanh(c); gates i, f, g, o
template <class CONFIG_T> struct lstm_cell : gated_cell<CONFIG_T> {
    typedef gated_cell<CONFIG_T> base;
    static const unsigned units = CONFIG_T::units;

    lanes<typename CONFIG_T::cell_t> c[units];
    lanes<typename CONFIG_T::cell_quantizer::input_t> memory[units];

    lstm_cell() {
#pragma HLS ARRAY_PARTITION variable=c complete
#pragma HLS ARRAY_PARTITION variable=memory complete
    Units:
        for (unsigned u = 0; u < units; u++) {
#pragma HLS UNROLL
            memory[u] = typename CONFIG_T::cell_quantizer::input_t(0);
        }
        CONFIG_T::cell_quantizer::run(memory, c);
    }

    template <class H, class C> void start(const H given[], const C given_memory[]) {
#pragma HLS INLINE
        base::start(given);
    Units:
        for (unsigned u = 0; u < units; u++) {
#pragma HLS UNROLL
            memory[u] = given_memory[u];
        }
        CONFIG_T::cell_quantizer::run(memory, c);
    }

    template <class Y> void append(Y to[]) const {
#pragma HLS INLINE
        if (CONFIG_T::return_cell) {
        Units:
            for (unsigned u = 0; u < units; u++) {
#pragma HLS UNROLL
                to[u] = memory[u];
            }
        }
    }

    template <class X, class... PARAMETERS> void step(const X x[], const PARAMETERS *...parameters) {
#pragma HLS INLINE
        this->sum(x, parameters...);
        typename base::gate i[units], f[units], o[units];
        typename base::value g[units], squashed[units];
#pragma HLS ARRAY_PARTITION variable=i complete
#pragma HLS ARRAY_PARTITION variable=f complete
#pragma HLS ARRAY_PARTITION variable=o complete
#pragma HLS ARRAY_PARTITION variable=g complete
#pragma HLS ARRAY_PARTITION variable=squashed complete
        this->template activate<typename base::recurrent_activation>(0, i);
        this->template activate<typename base::recurrent_activation>(1, f);
        this->template activate<typename base::activation>(2, g);
        this->template activate<typename base::recurrent_activation>(3, o);
        lanes<typename base::activation::input_t> recalled[units];
#pragma HLS ARRAY_PARTITION variable=recalled complete
    Memory:
        for (unsigned u = 0; u < units; u++) {
#pragma HLS UNROLL
            memory[u] = f[u] * c[u] + i[u] * g[u];
            recalled[u] = memory[u];
        }
        CONFIG_T::cell_quantizer::run(memory, c);
        base::activation::run(recalled, squashed);
    Units:
        for (unsigned u = 0; u < units; u++) {
#pragma HLS UNROLL
            this->y[u] = o[u] * squashed[u];
        }
        this->keep();
    }
};

// What both GRUs share: the gates z, r, g, of which the candidate g is left to them, and the update.
template <class CONFIG_T> struct gru_base : gated_cell<CONFIG_T> {
    typedef gated_cell<CONFIG_T> base;
    static const unsigned units = CONFIG_T::units;

    typename base::gate z[units], r[units];
    typename base::value g[units];

    gru_base() {
#pragma HLS ARRAY_PARTITION variable=z complete
#pragma HLS ARRAY_PARTITION variable=r complete
#pragma HLS ARRAY_PARTITION variable=g complete
    }

    void gates() {
#pragma HLS INLINE
        this->template activate<typename base::recurrent_activation>(0, z);
        this->template activate<typename base::recurrent_activation>(1, r);
    }

    // h = z h + (1 - z) g, written with one product
    void update() {
#pragma HLS INLINE
    Units:
        for (unsigned u = 0; u < units; u++) {
#pragma HLS UNROLL
            this->y[u] = z[u] * (this->h[u] - g[u]) + g[u];
        }
        this->keep();
    }
};

// The reset gate r scales the candidate's sum over the state.
template <class CONFIG_T> struct gru_cell : gru_base<CONFIG_T> {
    static const unsigned units = CONFIG_T::units;

    template <class X, class... PARAMETERS> void step(const X x[], const PARAMETERS *...parameters) {
#pragma HLS INLINE
        this->sum(x, parameters...);
        this->gates();
        lanes<typename CONFIG_T::activation::input_t> candidate[units];
#pragma HLS ARRAY_PARTITION variable=candidate complete
    Candidates:
        for (unsigned u = 0; u < units; u++) {
#pragma HLS UNROLL
            candidate[u] = this->r[u] * this->of_state[2 * units + u] + this->of_input[2 * units + u];
        }
        CONFIG_T::activation::run(candidate, this->g);
        this->update();
    }
};

// The reset gate r scales the state that candidate_matrix is applied to.
template <class CONFIG_T> struct gru_reset_before_cell : gru_base<CONFIG_T> {
    typedef recurrent_cell<CONFIG_T> base;
    static const unsigned units = CONFIG_T::units;

    template <class X>
    void step(const X x[], const typename base::weight_t weight[], const typename base::bias_t bias[],
              const typename base::recurrent_weight_t recurrent_weight[], const typename base::bias_t recurrent_bias[],
              const typename base::recurrent_weight_t candidate_weight[]) {
#pragma HLS INLINE
        this->sum(x, weight, bias, recurrent_weight, recurrent_bias);
        this->gates();
        lanes<typename CONFIG_T::reset_t> reset[units];
#pragma HLS ARRAY_PARTITION variable=reset complete
    Resets:
        for (unsigned u = 0; u < units; u++) {
#pragma HLS UNROLL
            reset[u] = this->r[u] * this->h[u];
        }
        matvec<typename CONFIG_T::candidate_matrix>(reset, candidate_weight, recurrent_bias + 2 * units,
                                                    this->of_state + 2 * units);
        this->template activate<typename CONFIG_T::activation>(2, this->g);
        this->update();
    }
};

// Step t, and the new values into the output where they belong there
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
            y[to + u] = cell.y[u];
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

template <> struct recurrence<unrolled> : recurrence<latency> {};

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

// The same, for a sequence that comes and goes step by step
template <class CONFIG_T, class CELL, class FROM, class TO, class... PARAMETERS>
void recurrent_step_stream(unsigned t, CELL &cell, FROM &from, TO &to, const PARAMETERS *...parameters) {
#pragma HLS INLINE
    lanes<typename CONFIG_T::input_t> x[CONFIG_T::features];
#pragma HLS ARRAY_PARTITION variable=x complete
    take(from, x);
    cell.step(x, parameters...);
    if (CONFIG_T::return_sequences || t + 1 == CONFIG_T::steps) {
        give(cell.y, to);
    }
}

template <strategy S> struct recurrence_stream;

template <> struct recurrence_stream<latency> {
    template <class CONFIG_T, class CELL, class FROM, class TO, class... PARAMETERS>
    static void run(CELL &cell, FROM &from, TO &to, const PARAMETERS *...parameters) {
#pragma HLS INLINE
    Steps:
        for (unsigned t = 0; t < CONFIG_T::steps; t++) {
            NNET_STREAM_PIPELINE(CONFIG_T::reuse_factor)
            recurrent_step_stream<CONFIG_T>(t, cell, from, to, parameters...);
        }
    }
};

template <> struct recurrence_stream<unrolled> : recurrence_stream<latency> {};

template <> struct recurrence_stream<resource> {
    template <class CONFIG_T, class CELL, class FROM, class TO, class... PARAMETERS>
    static void run(CELL &cell, FROM &from, TO &to, const PARAMETERS *...parameters) {
#pragma HLS INLINE
    Steps:
        for (unsigned t = 0; t < CONFIG_T::steps; t++) {
            recurrent_step_stream<CONFIG_T>(t, cell, from, to, parameters...);
        }
    }
};

template <class CONFIG_T, class CELL, class FROM, class TO, class... PARAMETERS>
void recurrent_stream(FROM &from, TO &to, const PARAMETERS *...parameters) {
    CELL cell;
    recurrence_stream<CONFIG_T::strategy>::template run<CONFIG_T>(cell, from, to, parameters...);
}

template <class CONFIG_T, class CELL, class X, class Y, class... PARAMETERS>
void recurrent_steps(CELL &cell, const X x[], Y y[], const PARAMETERS *...parameters) {
#pragma HLS INLINE
    recurrence<CONFIG_T::strategy>::template run<CONFIG_T>(cell, x, y, parameters...);
    cell.append(y + (CONFIG_T::return_sequences ? CONFIG_T::steps : 1) * CONFIG_T::units);
}

// x [steps][features] -> y [steps][units] or [units]; an LSTM may append c
template <class CONFIG_T, class CELL, class X, class Y, class... PARAMETERS>
void recurrent(const X x[], Y y[], const PARAMETERS *...parameters) {
    CELL cell;
    recurrent_steps<CONFIG_T>(cell, x, y, parameters...);
}

// The same from a given state h on
template <class CONFIG_T, class CELL, class X, class Y, class H, class... PARAMETERS>
void recurrent_from(const X x[], Y y[], const H h[], const PARAMETERS *...parameters) {
    CELL cell;
    cell.start(h);
    recurrent_steps<CONFIG_T>(cell, x, y, parameters...);
}

// The same from given h and c on
template <class CONFIG_T, class CELL, class X, class Y, class H, class C, class... PARAMETERS>
void recurrent_from_both(const X x[], Y y[], const H h[], const C c[], const PARAMETERS *...parameters) {
    CELL cell;
    cell.start(h, c);
    recurrent_steps<CONFIG_T>(cell, x, y, parameters...);
}

} // namespace nnet

#endif
