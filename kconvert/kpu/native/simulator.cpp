// Runs a checked kmodel, sample by sample: reads a program of numbers that simulator.py has made of the records.
//
// Python has checked that every access stays inside its memory; nothing is checked here. Results are those of the
// device's runtime to the last bit, which is why no product and sum of float may be fused.

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("O3,fp-contract=off")
#endif

#include "conv.h"
#include "elementwise.h"
#include "kpu_conv.h"
#include "moves.h"
#include "program.h"
#include "reductions.h"

#include <new>

namespace {

using Kernel = void (*)(Arguments&);

// In the order of simulator.py: KERNELS.
constexpr Kernel kernels[] = {
    binary,    quantized_binary, quantize,         dequantize,       unary,       nnil_unary,     table_lookup,
    conv2d,    quantized_conv2d, conv2d_transpose, matmul,           quantized_matmul, concat,    memory_copy,
    pad,       transpose,        strided_slice,    resize_image,     reduce,      reduce_window2d, softmax,
    kpu_upload, kpu_conv2d,
};

struct Port {  // an input or output of the model
    int64_t memory, start, bytes;
    int64_t upload;  // whether an input is brought into the layout of the KPU; then it has this shape
    Shape shape;
};

Port read_port(const int64_t* at) {
    return {at[0], at[1], at[2], at[3], {at[4], at[5], at[6], at[7]}};
}

}  // namespace

// Computes samples first to last - 1. A port is 8 numbers; data[i] are the samples of one, without gaps.
extern "C" __attribute__((visibility("default"))) int kconvert_kpu_run(
    const int64_t* program, int64_t steps, const uint8_t* constants, int64_t main_bytes, int64_t kpu_bytes,
    const int64_t* ports, int64_t inputs, int64_t outputs, uint8_t* const* data, int64_t first, int64_t last) try {
    std::vector<uint8_t> main(main_bytes + slack), kpu(kpu_bytes + slack);
    Memories memories = {const_cast<uint8_t*>(constants), main.data(), kpu.data()};
    for (int64_t sample = first; sample < last; ++sample) {
        std::fill(main.begin(), main.end(), 0);  // so that no sample sees anything of the one before
        std::fill(kpu.begin(), kpu.end(), 0);
        for (int64_t i = 0; i < inputs; ++i) {
            const Port port = read_port(ports + 8 * i);
            const uint8_t* from = data[i] + sample * port.bytes;
            uint8_t* to = memories[port.memory] + port.start;
            if (port.upload) upload(from, to, port.shape);
            else std::memcpy(to, from, port.bytes);
        }
        const int64_t* at = program;
        for (int64_t step = 0; step < steps; ++step, at += at[1]) {  // a kernel, the length, what the kernel needs
            Arguments arguments{at + 2, memories};
            kernels[at[0]](arguments);
        }
        for (int64_t i = 0; i < outputs; ++i) {
            const Port port = read_port(ports + 8 * (inputs + i));
            std::memcpy(data[inputs + i] + sample * port.bytes, memories[port.memory] + port.start, port.bytes);
        }
    }
    return 0;
} catch (const std::bad_alloc&) {
    return 1;
}
