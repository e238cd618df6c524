#include "processors.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "test.h"

namespace inferno {
namespace {

namespace fs = std::filesystem;

// Control groups in files of a directory that goes with it.
class Groups {
public:
    Groups() {
        std::string name = (fs::temp_directory_path() / "groups-XXXXXX").string();
        root             = mkdtemp(name.data());
    }
    ~Groups() { fs::remove_all(root); }

    void set(const std::string & group, const std::string & limit) {
        fs::create_directories(root / group);
        std::ofstream(root / group / "cpu.max") << limit << "\n";
    }

    double quota(const std::string & own) {
        std::ofstream(root / "own") << own << "\n";
        return cpu_quota(root.string(), (root / "own").string());
    }

    fs::path root;
};

TEST(a_quota_is_that_of_the_group_or_of_one_around_it) {
    Groups groups;
    groups.set("a", "400000 100000");
    groups.set("a/b", "max 100000");
    groups.set("a/c", "150000 100000");
    groups.set("a/d", "900000 100000");
    CHECK_EQ(groups.quota("0::/a/c"), 1.5);
    CHECK_EQ(groups.quota("0::/a/b"), 4.0);
    CHECK_EQ(groups.quota("0::/a/d"), 4.0);
    CHECK_EQ(groups.quota("0::/x/y"), 0.0);
}

TEST(in_a_container_the_root_is_the_own_group) {
    Groups groups;
    groups.set("", "200000 100000");
    CHECK_EQ(groups.quota("0::/"), 2.0);
    CHECK_EQ(groups.quota("12:cpu:/old\n0::/"), 2.0);
}

TEST(without_groups_there_is_no_quota) {
    Groups groups;
    CHECK_EQ(groups.quota(""), 0.0);
    CHECK_EQ(groups.quota("4:memory:/"), 0.0);
    CHECK_EQ(cpu_quota("/nowhere", "/nowhere"), 0.0);
    groups.set("a", "nonsense");
    CHECK_EQ(groups.quota("0::/a"), 0.0);
    CHECK(usable_cores() >= 1);
}

}  // namespace
}  // namespace inferno
