#include "channel.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <iterator>

#ifdef __linux__
#include <sys/eventfd.h>
#endif

namespace inferno {

namespace {

std::pair<int, int> open_wake() {
#ifdef __linux__
    const int fd  = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int fds[2]    = {fd, fd};
    const bool ok = fd >= 0;
#else
    int  fds[2] = {-1, -1};
    bool ok     = pipe(fds) == 0;
    for (int fd : fds) {
        ok = ok && fcntl(fd, F_SETFL, O_NONBLOCK) == 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
    }
#endif
    if (!ok) {
        throw Error(ErrorCode::internal_error, "The system has no more file descriptors.");
    }
    return {fds[0], fds[1]};
}

}  // namespace

Channel::Channel() : Channel(open_wake()) {}

Channel::~Channel() {
    close(read_fd_);
    if (write_fd_ != read_fd_) {
        close(write_fd_);
    }
}

void Channel::push(std::vector<Event> && events) {
    if (events.empty()) {
        return;
    }
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        const bool                        first = events_.empty();
        events_.insert(events_.end(), std::make_move_iterator(events.begin()), std::make_move_iterator(events.end()));
        if (first) {
            const uint64_t one = 1;
            // The descriptor was empty, so this cannot block or fail for want of space.
            [[maybe_unused]] const ssize_t written = write(write_fd_, &one, sizeof one);
        }
    }
    filled_.notify_all();
}

std::vector<Event> Channel::drain() {
    const std::lock_guard<std::mutex> lock(mutex_);
    uint64_t                          sink = 0;
    [[maybe_unused]] const ssize_t    read_bytes = read(read_fd_, &sink, sizeof sink);
    return std::exchange(events_, {});
}

bool Channel::wait(std::chrono::duration<double> timeout) {
    std::unique_lock<std::mutex> lock(mutex_);
    return filled_.wait_for(lock, timeout, [this] { return !events_.empty(); });
}

}  // namespace inferno
