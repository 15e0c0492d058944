"""Pictures from the network: politely, safely, resumably."""
