"""PDFs by PDFium. Only ``child`` and ``glyphs`` are loaded where a file is read, and only there PDFium itself."""
