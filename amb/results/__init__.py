"""What runs leave behind: documents, their collection, bundles, schemas, and the check of every figure."""
