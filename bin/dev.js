#!/usr/bin/env node
// Runs src/ directly, without a build: Node.js strips the types.
import {execute} from '@oclif/core';

await execute({
  development: true,
  dir: import.meta.url,
  loadOptions: {ignoreManifest: true, root: import.meta.dirname},
});
