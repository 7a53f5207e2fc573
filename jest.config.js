/** ES modules under jest: run with `node --experimental-vm-modules`. */
import {availableParallelism} from 'node:os';

export default {
  // Each has a PostgreSQL and an object server of its own.
  maxWorkers: Math.min(availableParallelism(), 4),
  testEnvironment: 'node',
  globalSetup: '<rootDir>/test/global-setup.ts',
  globalTeardown: '<rootDir>/test/global-teardown.ts',
  // Real servers on a machine that is shared.
  testTimeout: 60_000,
  testMatch: ['<rootDir>/test/**/*.test.ts'],
  extensionsToTreatAsEsm: ['.ts'],
  transform: {
    '\\.ts$': ['@swc/jest', {jsc: {target: 'es2024', parser: {syntax: 'typescript'}}, module: {type: 'es6'}}],
  },
};
