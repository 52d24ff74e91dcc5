# multistage::compiled, and multistage::compiled_io where multistage::io is: libraries with what the lists of compiled.hpp name,
# for projects of more than a unit or two. They are built only where something links them, with the flags of the project that does.

if(TARGET multistage_compiled)  # find_package may be called more than once
  return()
endif()

# A library of sources that hold a list each: name, umbrellas, what it links, then name and lines of each source.
function(multistage_add_compiled target umbrellas definition links)
  set(sources "")
  set(lists ${ARGN})
  while(lists)
    list(POP_FRONT lists name lines)
    set(text "// Made by CMake.\n")
    foreach(umbrella ${umbrellas})
      string(APPEND text "#include <multistage/${umbrella}.hpp>\n")
    endforeach()
    string(APPEND text "#include <multistage/compiled.hpp>\nnamespace multistage {\n${lines}\n}\n")
    set(source "${CMAKE_CURRENT_BINARY_DIR}/${target}/${name}.cpp")
    file(CONFIGURE OUTPUT "${source}" CONTENT "${text}" @ONLY)
    list(APPEND sources "${source}")
  endwhile()
  add_library(${target} STATIC EXCLUDE_FROM_ALL ${sources})
  target_link_libraries(${target} PUBLIC ${links})
  target_compile_definitions(${target} INTERFACE ${definition})
endfunction()

multistage_add_compiled(multistage_compiled multistage MULTISTAGE_COMPILED multistage::multistage
  networks "MULTISTAGE_RECORDINGS(template)\nMULTISTAGE_NETWORKS(template, float, cpu)"
  training "MULTISTAGE_TRAINING(template, float, cpu)"
  samplers "MULTISTAGE_SAMPLERS(template, float, cpu)"
  clustering "MULTISTAGE_CLUSTERING(template, cpu)")
add_library(multistage::compiled ALIAS multistage_compiled)
if(TARGET multistage::io)
  multistage_add_compiled(multistage_compiled_io "multistage;io;runs" MULTISTAGE_COMPILED_IO "multistage::io;multistage_compiled"
    files "MULTISTAGE_JSON(template)\nMULTISTAGE_FILES(template, float, cpu)"
    runs "MULTISTAGE_RUNS(template, cpu)"
    autoencoders "MULTISTAGE_AUTOENCODERS(template, float, cpu)")
  add_library(multistage::compiled_io ALIAS multistage_compiled_io)
endif()
