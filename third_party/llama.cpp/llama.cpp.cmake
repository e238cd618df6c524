# Sets INFERNO_LLAMA_SOURCE: a given checkout, else the source carried in a source distribution, else the cache.
set(INFERNO_LLAMA_CPP_DIR "" CACHE PATH "A llama.cpp checkout to build instead of the pinned one")
set(_carried "${CMAKE_CURRENT_LIST_DIR}/source")
if(INFERNO_LLAMA_CPP_DIR)
  set(INFERNO_LLAMA_SOURCE "${INFERNO_LLAMA_CPP_DIR}")
elseif(EXISTS "${_carried}/include/llama.h" AND NOT INFERNO_BUILD_PEERS)  # it carries the libraries, no programs
  set(INFERNO_LLAMA_SOURCE "${_carried}")
else()
  execute_process(
    COMMAND "${Python_EXECUTABLE}" "${CMAKE_CURRENT_LIST_DIR}/fetch.py"
    OUTPUT_VARIABLE INFERNO_LLAMA_SOURCE OUTPUT_STRIP_TRAILING_WHITESPACE
    RESULT_VARIABLE _status)
  if(NOT _status EQUAL 0)
    message(FATAL_ERROR "The pinned llama.cpp source could not be had; see the lines above.")
  endif()
endif()
if(NOT EXISTS "${INFERNO_LLAMA_SOURCE}/include/llama.h")
  message(FATAL_ERROR "${INFERNO_LLAMA_SOURCE} is not a llama.cpp source tree (no include/llama.h).")
endif()
message(STATUS "llama.cpp: ${INFERNO_LLAMA_SOURCE}")
set_property(DIRECTORY "${CMAKE_SOURCE_DIR}" APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
             "${CMAKE_CURRENT_LIST_DIR}/requirements.txt" "${CMAKE_CURRENT_LIST_DIR}/fetch.py")
