// A minimal test harness: TEST(name) { CHECK(...); } registers itself; main.cpp runs all, or those whose name
// contains argv[1]. A failed check is reported and the test goes on; an exception ends the test.
#pragma once

#include <cstdio>
#include <ctime>
#include <exception>
#include <functional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace testing {

struct Case {
    std::string           name;
    std::function<void()> body;
};

inline std::vector<Case> & cases() {
    static std::vector<Case> all;
    return all;
}

inline int & failures() {
    static int count = 0;
    return count;
}

struct Registration {
    Registration(std::string name, std::function<void()> body) { cases().push_back({std::move(name), std::move(body)}); }
};

inline void fail(const char * file, int line, const std::string & what) {
    ++failures();
    std::fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
}

// Processor time of this process: against what would take minutes, whatever else the machine does.
inline double processor_seconds() {
    return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

template <class A, class B>
void check_equal(const A & a, const B & b, const char * text, const char * file, int line) {
    if (a == b) {
        return;
    }
    std::ostringstream out;
    out << text << " (" << a << " vs " << b << ")";
    fail(file, line, out.str());
}

}  // namespace testing

#define TEST_JOIN2(a, b) a##b
#define TEST_JOIN(a, b) TEST_JOIN2(a, b)
#define TEST(name)                                                                                \
    static void                  test_##name();                                                   \
    static testing::Registration TEST_JOIN(registration_, name)(__FILE__ ": " #name, test_##name); \
    static void                  test_##name()

#define CHECK(expression)                                         \
    do {                                                          \
        if (!(expression)) {                                      \
            testing::fail(__FILE__, __LINE__, "CHECK " #expression); \
        }                                                         \
    } while (false)

#define CHECK_EQ(a, b) testing::check_equal((a), (b), "CHECK_EQ " #a ", " #b, __FILE__, __LINE__)

#define CHECK_THROWS(expression, Exception)                                          \
    do {                                                                             \
        bool thrown = false;                                                         \
        try {                                                                        \
            (void) (expression);                                                     \
        } catch (const Exception &) {                                                \
            thrown = true;                                                           \
        }                                                                            \
        if (!thrown) {                                                               \
            testing::fail(__FILE__, __LINE__, "CHECK_THROWS " #expression);          \
        }                                                                            \
    } while (false)
