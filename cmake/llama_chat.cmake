# The part of llama.cpp's common/ that chat templates and grammars need, and no more: not its argument parser, not its
# downloader, not its HTTP library.
set(_common "${INFERNO_LLAMA_SOURCE}/common")
file(GLOB _sources CONFIGURE_DEPENDS
     "${_common}/chat*.cpp" "${_common}/json*.cpp" "${_common}/jinja/*.cpp" "${_common}/parsers/*.cpp"
     "${_common}/ngram-*.cpp")
foreach(_name common fit log peg-parser reasoning-budget sampling speculative trie unicode)
  list(APPEND _sources "${_common}/${_name}.cpp")
endforeach()
add_library(inferno_llama_chat STATIC ${_sources})
target_include_directories(inferno_llama_chat SYSTEM PUBLIC "${_common}")
target_link_libraries(inferno_llama_chat PUBLIC llama llama-common-base vendor::nlohmann vendor::sheredom)
target_compile_features(inferno_llama_chat PUBLIC cxx_std_17)
target_compile_options(inferno_llama_chat PRIVATE -w)
# These files share heavy headers: together they compile in less than half the time. json.cpp specialises a template
# that its neighbours use, so it stays on its own.
set_target_properties(inferno_llama_chat PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
set_source_files_properties("${_common}/json.cpp" PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
set_target_properties(inferno_llama_chat PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
