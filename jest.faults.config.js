/** `npm run test:faults`: the suites that do their worst, in full size; what they found goes to docs/RELIABILITY.md. */
import base from './jest.config.js';

process.env.LOMA_TEST_SIZE = 'full';

export default {
  ...base,
  testMatch: ['faults', 'fuzz', 'databases', 'load'].map((name) => `<rootDir>/test/${name}/**/*.test.ts`),
  reporters: ['default', '<rootDir>/test/support/reliability-reporter.ts'],
};
