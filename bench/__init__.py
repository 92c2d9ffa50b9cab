"""The benchmark: syncd and what people use today, same work, same run, judged by the bytes in the target.

How it measures stands in docs/design/performance.md; `python -m bench.run --help` tells how to run it.
Nothing in `syncd` imports this.
"""
