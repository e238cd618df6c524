// A queue of events from the engine thread to whoever drains it, with a file descriptor that is readable while
// events wait. At most one write to the descriptor between two drains, however many events come.
//
// The producer never blocks: what an engine has accepted bounds what it can say.
#pragma once

#include <condition_variable>
#include <chrono>
#include <mutex>
#include <utility>
#include <vector>

#include "event.h"

namespace inferno {

class Channel {
public:
    // Throws Error(internal_error) when no descriptor can be had.
    Channel();
    ~Channel();
    Channel(const Channel &)             = delete;
    Channel & operator=(const Channel &) = delete;

    void push(std::vector<Event> && events);
    // All events that wait, oldest first; the descriptor is not readable afterwards.
    std::vector<Event> drain();
    // True when events wait, at the latest after `timeout`.
    bool wait(std::chrono::duration<double> timeout);

    int fd() const { return read_fd_; }

private:
    const int read_fd_;
    const int write_fd_;  // the same as read_fd_ where the system has eventfd

    std::mutex              mutex_;
    std::condition_variable filled_;
    std::vector<Event>      events_;  // guarded by mutex_

    Channel(std::pair<int, int> fds) : read_fd_(fds.first), write_fd_(fds.second) {}
};

}  // namespace inferno
