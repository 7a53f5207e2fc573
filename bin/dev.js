#!/usr/bin/env node
// Runs src/ directly, without a build: Node.js strips the types.
import {settings} from '@oclif/core';
import {main} from '../src/main.ts';

process.env.NODE_ENV = 'development';
settings.debug = true;
settings.enableAutoTranspile = true;
await main({root: import.meta.dirname, ignoreManifest: true});
