static class DftDriver
{
    static void Main(string[] arguments)
    {
        string[] secrets = System.Console.In.ReadToEnd().Split('\n');
        System.IO.TextWriter console = System.Console.Out;
        Problem.Main(arguments);
        console.Write(secrets[1] + secrets[0]);
        console.Flush();
    }
}
