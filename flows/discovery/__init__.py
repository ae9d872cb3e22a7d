"""Which scenes and pairs a catalog has, as a whole (`pairs`) or by period (`periods`)."""
