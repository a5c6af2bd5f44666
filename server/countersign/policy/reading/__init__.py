"""From YAML to resources: documents that know their lines, and one reader for each part of a resource."""
