# What Doxygen reads of a header (docs/Doxyfile): the comment that it opens with becomes the page of the file, and names of one
# instruction set are those of the library.
1,/^#pragma once/ s@^// ?@/// @
1 s@^///@/// \\opening@
s@multistage::inline MULTISTAGE_ISA@multistage@
