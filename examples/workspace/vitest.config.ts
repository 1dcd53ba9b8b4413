import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    coverage: {
      provider: "istanbul",
      include: ["src/**/*.ts"],
      // "json" writes coverage/coverage-final.json, which the unit gate reads.
      reporter: ["json", "text-summary"],
      reportsDirectory: "coverage",
    },
  },
});
