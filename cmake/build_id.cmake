# Writes OUT with the version and `git describe` of SOURCE, only when it changed (so that nothing is
# compiled again without need). Runs at every build:
#   cmake -DSOURCE=... -DVERSION=... -DOUT=... -P cmake/build_id.cmake
set(id "unknown")
find_program(git git)
if(git AND EXISTS ${SOURCE}/.git)
  execute_process(COMMAND ${git} -C ${SOURCE} describe --always --tags --dirty
    OUTPUT_VARIABLE described OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(NOT failed AND described)
    set(id "${described}")
  endif()
endif()
set(text "#define SLUICE_VERSION \"${VERSION}\"\n#define SLUICE_BUILD_ID \"${id}\"\n")
set(old "")
if(EXISTS ${OUT})
  file(READ ${OUT} old)
endif()
if(NOT old STREQUAL text)
  file(WRITE ${OUT} "${text}")
endif()
