SELECT partition, next_offset, received FROM feed ORDER BY partition
