//! The bodies of the fuzz targets. Plain tests run them over the corpus, too.
