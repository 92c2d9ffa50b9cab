import os
from hypothesis import settings, Phase
import tests.property.test_stateful as t
TestHunt=t.machine(int(os.environ.get("N","400")),40,derandomize=False)
