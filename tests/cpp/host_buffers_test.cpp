#include "host_buffers.h"

#include <ggml-backend.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "llama_loading.h"
#include "test.h"

namespace inferno {
namespace {

using Buffer = std::unique_ptr<ggml_backend_buffer, decltype(&ggml_backend_buffer_free)>;

Buffer allocate(size_t size) {
    start_llama();
    return {ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size), ggml_backend_buffer_free};
}

uint8_t * memory_of(const Buffer & buffer) {
    return static_cast<uint8_t *>(ggml_backend_buffer_get_base(buffer.get()));
}

bool holds_only(const Buffer & buffer, uint8_t value) {
    const uint8_t * memory = memory_of(buffer);
    for (size_t i = 0; i < ggml_backend_buffer_get_size(buffer.get()); ++i) {
        if (memory[i] != value) {
            return false;
        }
    }
    return true;
}

size_t resident_pages(const Buffer & buffer) {
    const auto                 page  = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const uintptr_t            begin = reinterpret_cast<uintptr_t>(memory_of(buffer)) / page * page;
    const size_t               size  = ggml_backend_buffer_get_size(buffer.get());
    std::vector<unsigned char> pages(size / page + 2);
    CHECK_EQ(mincore(reinterpret_cast<void *>(begin), size, pages.data()), 0);
    size_t result = 0;
    for (const unsigned char flags : pages) {
        result += flags & 1u;
    }
    return result;
}

TEST(a_buffer_is_cleared_whatever_its_size) {
    for (const size_t size : {size_t{1}, size_t{100}, size_t{5000}, size_t{65536}, size_t{1000001}, size_t{1} << 24}) {
        const Buffer buffer = allocate(size);
        for (const uint8_t value : {uint8_t{7}, uint8_t{0}, uint8_t{255}, uint8_t{0}}) {
            ggml_backend_buffer_clear(buffer.get(), value);
            CHECK(holds_only(buffer, value));
        }
        std::memset(memory_of(buffer), 1, size);
        ggml_backend_buffer_clear(buffer.get(), 0);
        CHECK(holds_only(buffer, 0));
    }
}

TEST(clearing_writes_to_nothing_beyond) {
    const Buffer before = allocate(1000), buffer = allocate(1000), after = allocate(1000);
    ggml_backend_buffer_clear(before.get(), 1);
    ggml_backend_buffer_clear(after.get(), 2);
    ggml_backend_buffer_clear(buffer.get(), 0);
    CHECK(holds_only(before, 1));
    CHECK(holds_only(after, 2));
}

#ifdef __linux__
TEST(zeros_take_no_memory) {
    const Buffer buffer = allocate(size_t{1} << 24);
    ggml_backend_buffer_clear(buffer.get(), 0);
    CHECK(resident_pages(buffer) <= 1);
    ggml_backend_buffer_clear(buffer.get(), 1);
    CHECK(resident_pages(buffer) >= (size_t{1} << 24) / static_cast<size_t>(sysconf(_SC_PAGESIZE)));
    ggml_backend_buffer_clear(buffer.get(), 0);
    CHECK(resident_pages(buffer) <= 2);
}

TEST(locked_memory_is_cleared_too) {
    const Buffer buffer = allocate(65536);
    ggml_backend_buffer_clear(buffer.get(), 3);
    CHECK_EQ(mlock(memory_of(buffer), 65536), 0);
    ggml_backend_buffer_clear(buffer.get(), 0);
    CHECK(holds_only(buffer, 0));
}
#endif

}  // namespace
}  // namespace inferno
