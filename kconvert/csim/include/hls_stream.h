// hls::stream<T>: a first-in first-out queue between functions. In this sequential simulation it never fills up; how deep
// the hardware's queue has to be can be read afterwards from max_size().
#ifndef CSIM_HLS_STREAM_H
#define CSIM_HLS_STREAM_H

#include <deque>
#include <stdexcept>
#include <string>

namespace hls {

template <class T, int DEPTH = 0> class stream {
public:
    stream() = default;
    explicit stream(const char* name) : name_(name) {}
    explicit stream(std::string name) : name_(std::move(name)) {}
    stream(const stream&) = delete;  // a stream has one writer and one reader
    stream& operator=(const stream&) = delete;

    void write(const T& value) {
        queue_.push_back(value);
        if (queue_.size() > most_) most_ = queue_.size();
    }
    bool write_nb(const T& value) {
        write(value);
        return true;
    }
    T read() {
        if (queue_.empty()) throw std::runtime_error("stream '" + name_ + "' is read while it is empty");
        T value = queue_.front();
        queue_.pop_front();
        return value;
    }
    void read(T& value) { value = read(); }
    bool read_nb(T& value) {
        if (queue_.empty()) return false;
        value = read();
        return true;
    }

    bool empty() const { return queue_.empty(); }
    bool full() const { return false; }
    std::size_t size() const { return queue_.size(); }
    std::size_t max_size() const { return most_; }
    const std::string& name() const { return name_; }
    void set_name(std::string name) { name_ = std::move(name); }

    stream& operator<<(const T& value) {
        write(value);
        return *this;
    }
    stream& operator>>(T& value) {
        read(value);
        return *this;
    }

private:
    std::deque<T> queue_;
    std::size_t most_ = 0;
    std::string name_ = "unnamed";
};

}  // namespace hls

#endif
