#include "host_buffers.h"

#include <ggml-backend-impl.h>

#include <cstdint>
#include <cstring>

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace inferno {

namespace {

#ifdef __linux__

// Other systems may leave what was in such pages. Locked memory refuses.
bool give_back(uint8_t * pages, size_t size) {
    return madvise(pages, size, MADV_DONTNEED) == 0;
}

void zero(uint8_t * memory, size_t size) {
    const auto   page  = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t head  = (page - reinterpret_cast<uintptr_t>(memory) % page) % page;
    const size_t whole = size > head ? (size - head) / page * page : 0;
    if (whole == 0 || !give_back(memory + head, whole)) {
        std::memset(memory, 0, size);
        return;
    }
    std::memset(memory, 0, head);
    std::memset(memory + head + whole, 0, size - head - whole);
}

#else

void zero(uint8_t * memory, size_t size) {
    std::memset(memory, 0, size);
}

#endif

void clear(ggml_backend_buffer_t buffer, uint8_t value) {
    auto * memory = static_cast<uint8_t *>(ggml_backend_buffer_get_base(buffer));
    if (value == 0) {
        zero(memory, ggml_backend_buffer_get_size(buffer));
    } else {
        std::memset(memory, value, ggml_backend_buffer_get_size(buffer));
    }
}

decltype(ggml_backend_buffer_type_i::alloc_buffer) allocate_as_ggml_does = nullptr;

ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_t buffer = allocate_as_ggml_does(type, size);
    if (buffer != nullptr) {
        buffer->iface.clear = clear;
    }
    return buffer;
}

}  // namespace

void leave_zeros_to_the_system() {
    ggml_backend_buffer_type_i & host = ggml_backend_cpu_buffer_type()->iface;
    allocate_as_ggml_does             = host.alloc_buffer;
    host.alloc_buffer                 = allocate;
}

}  // namespace inferno
