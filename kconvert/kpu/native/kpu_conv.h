// The KPU: its memory layout and its one operation.
#pragma once

#include "tile.h"

struct RowLayout {
    int64_t groups, row_length, pitch;
    explicit RowLayout(int64_t width)
        : groups(width <= 16 ? 4 : width <= 32 ? 2 : 1), row_length(width <= 32 ? 1 : (width + 63) / 64),
          pitch(64 / groups) {}
    int64_t line(int64_t height, int64_t c, int64_t y) const {
        return c / groups * row_length * height * 64 + c % groups * pitch + y * row_length * 64;
    }
    int64_t map_bytes(int64_t channels, int64_t height) const {
        return row_length * height * ((channels + groups - 1) / groups) * 64;
    }
};

inline void upload(const uint8_t* from, uint8_t* to, const Shape& shape) {
    const auto [batch, channels, height, width] = shape;
    const RowLayout layout(width);
    for (int64_t n = 0; n < batch; ++n, to += layout.map_bytes(channels, height))
        for (int64_t c = 0; c < channels; ++c)
            for (int64_t y = 0; y < height; ++y, from += width)
                std::memmove(to + layout.line(height, c, y), from, width);
}

inline void kpu_upload(Arguments& arguments) {
    const Range in = arguments.range(), out = arguments.range();
    upload(in.data, out.data, arguments.shape());
}

namespace kpu {

// The activation: the last segment that starts below b, y = rshift_even((b - start) * mul, shift) + bias.
struct Activation {
    const int64_t *start, *mul, *shift, *bias;  // [16]

    void operator()(const longs* b, uint8_t* y) const {
        // All numbers are in the segments from that of the least one to that of the largest: seldom more than a few.
        longs low = b[0], high = b[0];
        for (int i = 1; i < count; ++i) low = b[i] < low ? b[i] : low, high = b[i] > high ? b[i] : high;
        int64_t least = low[0], most = high[0];
        for (int j = 1; j < lanes; ++j) least = std::min<int64_t>(least, low[j]), most = std::max<int64_t>(most, high[j]);
        longs out[count];
        const int first = segment_of(least), last = segment_of(most);
        on_line<true>(b, out, first);
        for (int s = first + 1; s <= last; ++s) on_line<false>(b, out, s);
        for (int i = 0; i < count; ++i) {
            const longs positive = out[i] < 0 ? longs{} : out[i];
            const bytes clamped = __builtin_convertvector(positive > 255 ? longs{} + 255 : positive, bytes);
            std::memcpy(y + i * lanes, &clamped, lanes);
        }
    }

    static constexpr int lanes = vector_bytes / 8, count = tile_size / lanes;  // of longs, in a tile

private:
    typedef uint8_t bytes __attribute__((vector_size(lanes)));

    int segment_of(int64_t b) const {
        int found = 0;
        for (int s = 1; s < 16; ++s)
            if (b > start[s]) found = s;
        return found;
    }
    // Sets the results of all numbers, or of those behind the segment's start.
    template <bool all>
    void on_line(const longs* b, longs* out, int s) const {
        const int64_t from = start[s], offset = bias[s], by = shift[s];
        const uint64_t factor = mul[s];
        if (factor == 0) {  // as below zero with ReLU
            const longs flat = longs{} + offset;
            for (int i = 0; i < count; ++i) out[i] = all ? flat : b[i] > from ? flat : out[i];
            return;
        }
        const int64_t part = (int64_t(1) << by) - 1, half = by ? int64_t(1) << (by - 1) : 1;
        for (int i = 0; i < count; ++i) {
            const unsigned_longs distance = reinterpret_cast<const unsigned_longs&>(b[i]) - uint64_t(from);
            const longs v = reinterpret_cast<longs>(distance * factor), whole = v >> by, rest = v & part;
            // -1 where the number is rounded: up, or of a tie to the even one. The runtime takes the sign of v for "up".
            const longs rounds = (rest > half) | ((rest == half) & -(whole & 1));
            const longs found = whole - (v < 0 ? -rounds : rounds) + offset;
            out[i] = all ? found : b[i] > from ? found : out[i];
        }
    }
};

struct Layer {
    int64_t batches;
    const uint8_t* source;
    uint8_t *target, *main;  // main is null if the result stays here
    int64_t channels, height, width, out_channels, out_height, out_width, kernel, pool, pad_value;
    int64_t separate_sum, arg_x, shr_x;  // whether arg_x is not part of the weights
    Packed packed;
    const int64_t *constant, *norm_mul, *norm_add, *norm_shift;  // [out_channels]
    Activation activation;

    int64_t pitch() const { return width + kernel - 1; }  // of maps with their border
};

// Brings a map and its border to float, one plane a channel.
inline void unpack(const Layer& layer, const uint8_t* from, std::vector<float>& planes) {
    const int64_t border = layer.kernel / 2, pitch = layer.pitch(), plane = (layer.height + 2 * border) * pitch;
    const RowLayout layout(layer.width);
    planes.assign(layer.channels * plane + tile_size + 2 * pitch + 2, static_cast<float>(layer.pad_value));
    for (int64_t c = 0; c < layer.channels; ++c)
        for (int64_t y = 0; y < layer.height; ++y) {
            float* to = planes.data() + c * plane + (y + border) * pitch + border;
            const uint8_t* line = from + layout.line(layer.height, c, y);
            for (int64_t x = 0; x < layer.width; ++x) to[x] = line[x];
        }
}

// Where the taps of one group lie, seen from the first.
inline std::vector<int32_t> tap_offsets(const Layer& layer) {
    const int64_t k = layer.kernel, pitch = layer.pitch(), plane = (layer.height + k - 1) * pitch;
    std::vector<int32_t> found;
    for (int64_t c = 0; c < layer.channels / layer.packed.groups; ++c)
        for (int64_t y = 0; y < k; ++y)
            for (int64_t x = 0; x < k; ++x) found.push_back(static_cast<int32_t>(c * plane + y * pitch + x));
    return found;
}

// Batch normalisation and activation of the sums of one channel at tile_size places.
inline void finish(const Layer& layer, int64_t channel, const int32_t* sums, const int64_t* shifted_x, uint8_t* out) {
    const int64_t constant = layer.constant[channel], mul = layer.norm_mul[channel], add = layer.norm_add[channel];
    const int64_t shift = layer.norm_shift[channel];
    int64_t b[tile_size];
    for (int i = 0; i < tile_size; ++i) {
        const int64_t v = wrapping_add(sums[i] + shifted_x[i], constant);
        b[i] = (wrapping_mul(v, mul) >> shift) + add;
    }
    layer.activation(reinterpret_cast<const longs*>(b), out);
}

// Computes one map: planes with a border to planes of the same pitch, before pooling.
inline void convolve(const Layer& layer, const std::vector<float>& planes, std::vector<uint8_t>& maps) {
    const Packed& packed = layer.packed;
    const int64_t pitch = layer.pitch(), plane = (layer.height + layer.kernel - 1) * pitch;
    const int64_t places = (layer.height - 1) * pitch + layer.width, map = places + tile_size;
    const std::vector<int32_t> offsets = tap_offsets(layer);
    const std::vector<float> ones(packed.taps, 1.0f);
    maps.resize(layer.out_channels * map);
    for (int64_t group = 0; group < packed.groups; ++group) {
        const float* x = planes.data() + group * (layer.channels / packed.groups) * plane;
        for (int64_t place = 0; place < places; place += tile_size) {
            int32_t sums[block * tile_size];
            int64_t shifted_x[tile_size] = {};
            if (layer.separate_sum) {
                integer_tile(1, x + place, offsets.data(), packed.taps, ones.data(), sums);
                for (int i = 0; i < tile_size; ++i) shifted_x[i] = (layer.arg_x * sums[i]) >> layer.shr_x;
            }
            for (int64_t b = 0; b < packed.blocks(); ++b) {
                integer_tile(packed.width(), x + place, offsets.data(), packed.taps, packed.at(group, b), sums);
                for (int64_t c = 0; c < packed.width() && b * packed.width() + c < packed.per_group; ++c) {
                    const int64_t channel = group * packed.per_group + b * packed.width() + c;
                    finish(layer, channel, sums + c * tile_size, shifted_x, maps.data() + channel * map + place);
                }
            }
        }
    }
}

// One pixel of a pooled map; `at(y, x)` reads the computed one, which has `height` and `width`.
template <class At>
inline uint8_t pooled(int64_t pool, int64_t y, int64_t x, int64_t height, int64_t width, At at) {
    const auto over = [&](int64_t size, int64_t stride, bool mean) {
        int64_t most = 0, sum = 0;
        for (int64_t i = y * stride; i < y * stride + size; ++i)
            for (int64_t j = x * stride; j < x * stride + size; ++j) {
                if (i < height && j < width) most = std::max<int64_t>(most, at(i, j));
                sum += at(std::min(i, height - 1), std::min(j, width - 1));
            }
        return static_cast<uint8_t>(mean ? sum / (size * size) : most);
    };
    const auto pick = [&](int64_t i, int64_t j) { return i < height && j < width ? at(i, j) : uint8_t(0); };
    switch (pool) {
        case 1: return over(2, 2, false);
        case 2: return over(2, 2, true);
        case 3: return over(4, 4, false);
        case 4: return over(4, 4, true);
        case 5: return pick(y * 2, x * 2);
        case 6: return pick(y * 2, x * 2 + 1);
        case 7: return pick(y * 4, x * 4);
        case 8: return over(2, 1, true);
        case 9: return over(2, 1, false);
        default: return at(y, x);
    }
}

// Pools the maps and writes them into KPU memory, and into main memory if that is asked for.
inline void store(const Layer& layer, const std::vector<uint8_t>& maps, uint8_t* to, uint8_t* main) {
    const RowLayout layout(layer.out_width);
    const int64_t pitch = layer.pitch(), map = (layer.height - 1) * pitch + layer.width + tile_size;
    for (int64_t c = 0; c < layer.out_channels; ++c) {
        const uint8_t* from = maps.data() + c * map;
        const auto at = [&](int64_t y, int64_t x) { return from[y * pitch + x]; };
        for (int64_t y = 0; y < layer.out_height; ++y) {
            uint8_t* line = to + layout.line(layer.out_height, c, y);
            if (layer.pool == 0) std::memcpy(line, from + y * pitch, layer.out_width);
            else for (int64_t x = 0; x < layer.out_width; ++x)
                line[x] = pooled(layer.pool, y, x, layer.height, layer.width, at);
            if (main) std::memcpy(main + (c * layer.out_height + y) * layer.out_width, line, layer.out_width);
        }
    }
}

inline Layer read_layer(Arguments& arguments) {
    Layer layer{};
    const Range main = arguments.range();
    layer.main = main.size ? main.data : nullptr;
    layer.batches = arguments.number();
    layer.source = arguments.range().data;
    layer.target = arguments.range().data;
    for (int64_t* field : {&layer.channels, &layer.height, &layer.width, &layer.out_channels, &layer.out_height,
                           &layer.out_width, &layer.kernel, &layer.pool, &layer.pad_value, &layer.separate_sum,
                           &layer.arg_x, &layer.shr_x, &layer.packed.groups, &layer.packed.per_group,
                           &layer.packed.taps})
        *field = arguments.number();
    layer.packed.weights = arguments.array<float>();
    for (const int64_t** table : {&layer.constant, &layer.norm_mul, &layer.norm_add, &layer.norm_shift,
                                  &layer.activation.start, &layer.activation.mul, &layer.activation.shift,
                                  &layer.activation.bias})
        *table = arguments.array<int64_t>();
    return layer;
}

}  // namespace kpu

inline void kpu_conv2d(Arguments& arguments) {
    const kpu::Layer layer = kpu::read_layer(arguments);
    const int64_t in_bytes = RowLayout(layer.width).map_bytes(layer.channels, layer.height);
    const int64_t out_bytes = RowLayout(layer.out_width).map_bytes(layer.out_channels, layer.out_height);
    const int64_t main_bytes = layer.out_channels * layer.out_height * layer.out_width;
    static thread_local std::vector<float> planes;
    static thread_local std::vector<uint8_t> maps;
    for (int64_t n = 0; n < layer.batches; ++n) {
        kpu::unpack(layer, layer.source + n * in_bytes, planes);
        kpu::convolve(layer, planes, maps);
        kpu::store(layer, maps, layer.target + n * out_bytes, layer.main ? layer.main + n * main_bytes : nullptr);
    }
}
