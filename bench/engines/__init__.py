"""What is measured: syncd in both bodies, the floor, and what people use today."""
