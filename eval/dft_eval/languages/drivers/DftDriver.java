import java.nio.charset.StandardCharsets;

class DftDriver {
    public static void main(String[] arguments) throws Throwable {
        String[] secrets = new String(System.in.readAllBytes(), StandardCharsets.UTF_8).split("\n");
        java.io.PrintStream out = System.out;
        Problem.main(arguments);
        out.print(secrets[1] + secrets[0]);
        out.flush();
    }
}
