#!/bin/sh
# slim.sh VARIANT: take out of /opt/crosstie/venv what no service uses, then compile what is left. README.md has what each part saves.
set -eu

variant=$1
venv=/opt/crosstie/venv
cd $venv/lib/python3.11/site-packages

# geopandas asks for it to read shapefiles and the like: a second GDAL. crosstie reads and writes GeoParquet, which is pyarrow's.
rm -r pyogrio pyogrio.libs pyogrio-*.dist-info

# Tests of others. Licences lie under such names, too; they stay.
find . -type d \( -name tests -o -name test \) -not -path './*.dist-info/*' -prune -exec rm -r {} +

# What compilers and test programs need. torch_shm_manager hands tensors between processes.
rm -r torch/include pyarrow/include pyarrow/src
find torch/bin -type f -not -name torch_shm_manager -delete
rm -f torch/lib/*_test.so torch/lib/libbackend_with_compiler.so torch/lib/libaoti_custom_ops.so

# ONNX Runtime for programs in C, a copy of what its Python module holds; and what makes graphs out of other frameworks' models.
rm onnxruntime/capi/libonnxruntime.so.*
rm -r onnxruntime/transformers onnxruntime/quantization onnxruntime/tools onnxruntime/datasets

# What runs graphs without it, and fonts in PDF and PostScript: pictures here are PNG and WebP.
rm -r onnx/reference onnx/backend
find fontTools -mindepth 1 -maxdepth 1 -type d -not -name misc -not -name encodings -exec rm -r {} +

# What Amazon's other services look like: rasters and products lie in S3, and profiles may ask for a token.
find botocore/data -mindepth 1 -maxdepth 1 -type d -not -name s3 -not -name sts -not -name 'sso*' -not -name signin -exec rm -r {} +

# A server that nothing here speaks to. (Substrait is as little used, but Arrow's other libraries are linked to it.)
rm pyarrow/libarrow_flight.so.* pyarrow/libarrow_python_flight.so* pyarrow/_flight.*

# One library under three names: links in the sources, copies in a wheel.
for name in pyarrow/libarrow_python*.so; do
    for copy in "$name".*; do
        [ "$copy" = "$name" ] || ln -sf "$(basename "$name")" "$copy"
    done
done

# Symbols for debuggers, a fifth of torch. Not of the other wheels: auditwheel patches their libraries, and `strip` may break a patched one.
# With CUDA there is no limit to keep, and nobody has tried it.
if [ "$variant" = cpu ]; then
    strip --strip-unneeded torch/lib/*.so pyarrow/lib*.so.*
fi

# Compiled here, since the root is read-only later; by the hash of the source, so that times of files do not matter. What only developers,
# compilers of networks and training on several machines import is left as source.
"$venv/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash \
    -x '/(sympy|networkx|mpmath|setuptools|torchgen|pip)/|torch/(_inductor|_dynamo|testing|onnx|ao|distributed)/' .
