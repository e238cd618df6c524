#include "software_devices.h"

#ifdef INFERNO_VULKAN

#include <vulkan/vulkan.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

namespace inferno {

namespace {

constexpr const char * kVariable = "GGML_VK_VISIBLE_DEVICES";

// As Vulkan numbers the devices; empty without a driver.
std::vector<VkPhysicalDeviceType> physical_devices() {
    VkApplicationInfo application{};
    application.sType      = VK_STRUCTURE_TYPE_APPLICATION_INFO;
    application.apiVersion = VK_API_VERSION_1_2;
    VkInstanceCreateInfo description{};
    description.sType            = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
    description.pApplicationInfo = &application;
    VkInstance instance          = nullptr;
    if (vkCreateInstance(&description, nullptr, &instance) != VK_SUCCESS) {
        return {};
    }
    uint32_t count = 0;
    vkEnumeratePhysicalDevices(instance, &count, nullptr);
    std::vector<VkPhysicalDevice> devices(count);
    vkEnumeratePhysicalDevices(instance, &count, devices.data());
    std::vector<VkPhysicalDeviceType> types;
    for (uint32_t i = 0; i < count; ++i) {
        VkPhysicalDeviceProperties properties{};
        vkGetPhysicalDeviceProperties(devices[i], &properties);
        types.push_back(properties.deviceType);
    }
    vkDestroyInstance(instance, nullptr);
    return types;
}

std::vector<size_t> numbers(const char * text) {
    std::string spaced(text);
    std::replace(spaced.begin(), spaced.end(), ',', ' ');
    std::istringstream  words(spaced);
    std::vector<size_t> result;
    for (size_t number = 0; words >> number;) {
        result.push_back(number);
    }
    return result;
}

struct Software {
    bool              by_name_only = false;
    std::vector<bool> visible;  // of the devices that the variable names: whether each is software

    Software() {
        const auto types    = physical_devices();
        const auto computes = [&](size_t i) { return i < types.size() && types[i] == VK_PHYSICAL_DEVICE_TYPE_CPU; };
        if (std::getenv(kVariable) == nullptr) {
            std::string all;
            for (size_t i = 0; i < types.size(); ++i) {
                if (!computes(i)) {
                    return;  // ggml takes the real ones
                }
                all += (all.empty() ? "" : ",") + std::to_string(i);
            }
            if (all.empty()) {
                return;
            }
            setenv(kVariable, all.c_str(), 0);
            by_name_only = true;
        }
        for (const size_t i : numbers(std::getenv(kVariable))) {
            visible.push_back(computes(i));
        }
    }
};

const Software & software() {
    static const Software found;
    return found;
}

}  // namespace

void show_software_devices() {
    software();
}

bool is_software_device(size_t index) {
    return index < software().visible.size() && software().visible[index];
}

bool software_is_by_name_only() {
    return software().by_name_only;
}

}  // namespace inferno

#else

namespace inferno {

void show_software_devices() {}

bool is_software_device(size_t) {
    return false;
}

bool software_is_by_name_only() {
    return false;
}

}  // namespace inferno

#endif
